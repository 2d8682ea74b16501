//! Wide rows: whether their ratio is worse than narrow ones', and whether a long value that did not change is left alone.

use custody_harness::Result;

use crate::contestant::{Bench, Contestant};
use crate::report::{Line, Report, Target};
use crate::sections::bulk;
use crate::timing::seconds;

const CONTESTANTS: [Contestant; 3] = [Contestant::Plain, Contestant::Custody, Contestant::JsonTrigger];

/// What the ratio of a wide row may exceed the narrow one's by and still count as no worse: the rounds' own noise.
const NOISE: f64 = 1.05;

const NARROW: &str = "narrow";
const FEW_AND_NARROW: &str = "100 bytes text";
const LONG: &str = "100 kB text, out of line";

struct Shape {
    name: &'static str,
    table: String,
    rows: u32,
    /// The rows, as an INSERT's source.
    source: String,
    /// Changes a short column.
    update: &'static str,
    /// How often the UPDATE is repeated within a sample.
    passes: u32,
}

fn shapes() -> [Shape; 5] {
    let forty = |n: u32| match n % 3 {
        0 => (format!("c{n} integer"), format!("g + {n}")),
        1 => (format!("c{n} text"), format!("'value ' || (g + {n})")),
        _ => (format!("c{n} numeric(12,2)"), format!("g + {n}.25")),
    };
    let (columns, values): (Vec<_>, Vec<_>) = (1..40).map(forty).unzip();
    let digits = |length: u32| {
        format!("(SELECT string_agg(md5(i::text), '' ORDER BY i) FROM generate_series(1, {}) i)", length.div_ceil(32))
    };
    let with_body = |length: u32, rows: u32| {
        let body = digits(length);
        format!(
            "SELECT g, 0, left(g || b.body, {length}) FROM (SELECT {body} AS body OFFSET 0) b, generate_series(1, {rows}) g"
        )
    };
    let body = "CREATE TABLE wide (id bigint PRIMARY KEY, n integer NOT NULL, body text NOT NULL)";
    [
        Shape {
            name: NARROW,
            table: bulk::TABLE.replace("item", "wide"),
            rows: 20_000,
            source: bulk::rows(20_000),
            update: "UPDATE wide SET amount = amount + 1",
            passes: 1,
        },
        Shape {
            name: "40 columns",
            table: format!("CREATE TABLE wide (id bigint PRIMARY KEY, {})", columns.join(", ")),
            rows: 20_000,
            source: format!("SELECT g, {} FROM generate_series(1, 20000) g", values.join(", ")),
            update: "UPDATE wide SET c3 = c3 + 1",
            passes: 1,
        },
        Shape {
            name: "1.9 kB text, in line",
            table: body.into(),
            rows: 10_000,
            source: with_body(1900, 10_000),
            update: "UPDATE wide SET n = n + 1",
            passes: 1,
        },
        Shape {
            name: FEW_AND_NARROW,
            table: body.into(),
            rows: 500,
            source: with_body(100, 500),
            update: "UPDATE wide SET n = n + 1",
            passes: 20,
        },
        Shape {
            name: LONG,
            table: body.into(),
            rows: 500,
            source: with_body(100_000, 500),
            update: "UPDATE wide SET n = n + 1",
            passes: 20,
        },
    ]
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut databases = Vec::new();
    for contestant in CONTESTANTS {
        databases.push(bench.database(contestant, "", &[])?);
    }
    let mut measured: Vec<_> = shapes()
        .map(|shape| {
            let new = |what: &str| Line::new(format!("{what}, {}", shape.name), "µs/row", "plain");
            (new("INSERT"), new("UPDATE of a short column"), shape)
        })
        .into();
    for _ in 0..bench.rounds(3) {
        for (insert, update, shape) in &mut measured {
            for database in &databases {
                let name = database.contestant.name();
                let mut client = database.connect()?;
                client.batch_execute(&shape.table)?;
                database.audit(&mut client, &["wide"])?;
                let per_row = 1e6 / f64::from(shape.rows);
                database.settle(&mut client, &[])?;
                insert.sample(name, seconds(&mut client, &format!("INSERT INTO wide {}", shape.source))? * per_row);
                database.settle(&mut client, &[])?;
                // The trigger that copies the long value each time would take all day.
                let passes = if database.contestant == Contestant::JsonTrigger { 1 } else { shape.passes };
                let mut took = 0.0;
                for _ in 0..passes {
                    took += seconds(&mut client, shape.update)?;
                }
                update.sample(name, took * per_row / f64::from(passes));
                client.batch_execute("DROP TABLE wide")?;
            }
            println!("{}\n{}", insert.progress(), update.progress());
        }
    }
    let of = |name: &str| {
        let shape = measured.iter().find(|(_, _, shape)| shape.name == name);
        shape.map_or((0.0, 0.0), |(insert, update, _)| (insert.ratio("custody"), update.ratio("custody")))
    };
    // Five hundred rows a statement are another measurement than twenty thousand, so they have a narrow one of their own.
    let (narrow, few_and_narrow) = (of(NARROW), of(FEW_AND_NARROW));
    let mut untouched = Line::new("UPDATE of a short column, custody", "µs/row", "beside 100 bytes")
        .target("beside 100 kB, out of line", Target::AtMost(1.1));
    for (insert, update, shape) in measured {
        let limit = |line: Line, ratio: f64, of: &str| {
            let note = format!("the target is the ratio of \"{of}\" and 5 % for noise");
            line.target("custody", Target::AtMost(ratio * NOISE)).note(note)
        };
        let beside = match shape.name {
            FEW_AND_NARROW => Some("beside 100 bytes"),
            LONG => Some("beside 100 kB, out of line"),
            _ => None,
        };
        if let Some(beside) = beside {
            update.samples("custody").iter().for_each(|s| untouched.sample(beside, *s));
        }
        let (insert, update) = match shape.name {
            NARROW | FEW_AND_NARROW => (insert, update),
            LONG => (limit(insert, few_and_narrow.0, FEW_AND_NARROW), limit(update, few_and_narrow.1, FEW_AND_NARROW)),
            _ => (limit(insert, narrow.0, NARROW), limit(update, narrow.1, NARROW)),
        };
        report.add(insert);
        report.add(update);
    }
    report.add(untouched);
    Ok(())
}
