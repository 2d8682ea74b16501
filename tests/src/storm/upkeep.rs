//! What goes on around the writers: tables are redefined, vacuumed and indexed, and the log is verified.

use std::thread;
use std::time::{Duration, Instant};

use custody_harness::SUPERUSER;
use postgres::{Client, Error};
use rand::Rng;
use rand::rngs::StdRng;

use super::{Storm, Verdict};

/// What a table is called now, and what its columns are.
struct Definition {
    oid: u32,
    schema: String,
    table: String,
    /// Name and type by attribute number.
    columns: Vec<(i16, String, String)>,
}

impl Definition {
    fn of(client: &mut Client, pattern: &str) -> Result<Self, Error> {
        let table = client.query_one(
            "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('public', 'shop', 'shop_b') AND c.relname::text IN ($1, $1 || '_b')",
            &[&pattern],
        )?;
        let columns = client.query(
            "SELECT attnum, attname::text, atttypid::regtype::text FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[&table.get::<_, u32>(0)],
        )?;
        let columns = columns.iter().map(|c| (c.get(0), c.get(1), c.get(2))).collect();
        Ok(Self { oid: table.get(0), schema: table.get(1), table: table.get(2), columns })
    }

    fn name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    fn column(&self, number: i16) -> (&str, &str) {
        let column = self.columns.iter().find(|c| c.0 == number);
        column.map_or(("", ""), |c| (&c.1, &c.2))
    }

    fn rename(&self, number: i16) -> String {
        let (name, _) = self.column(number);
        format!("ALTER TABLE {} RENAME COLUMN {name} TO {}", self.name(), other_name(name))
    }
}

/// Every name has one other, which ends in _b; the log is read knowing that.
fn other_name(name: &str) -> String {
    name.strip_suffix("_b").map_or_else(|| format!("{name}_b"), ToOwned::to_owned)
}

impl Storm {
    /// Changes definitions back and forth, each time leaving a mark of the shape that holds from there on.
    pub(super) fn redefine(&self, mut random: StdRng, until: Instant) {
        let mut client = None;
        while self.goes_on(until) {
            let Some(session) = client.as_mut() else {
                client = self.connect(SUPERUSER);
                continue;
            };
            let lost = match self.redefinition(session, &mut random) {
                Ok(()) => false,
                Err(error) => matches!(self.judge(&error), Verdict::Lost),
            };
            if lost || session.batch_execute("ROLLBACK").is_err() {
                client = None;
            }
            thread::sleep(Duration::from_millis(random.random_range(0..20)));
        }
    }

    fn redefinition(&self, client: &mut Client, random: &mut StdRng) -> Result<(), Error> {
        let account = Definition::of(client, "account")?;
        let parted = Definition::of(client, "parted")?;
        let away = !client.query("SELECT FROM pg_class WHERE relname = 'parted_2_away'", &[])?.is_empty();
        let shop = &parted.schema;
        let (logical, table) = if random.random_bool(0.6) { ("account", &account) } else { ("parted", &parted) };
        let name = table.name();
        let mut fill = "NULL".to_owned();
        // What keeps the writers out is put back soon.
        let urgent = [
            (account.table != "account").then_some(4),
            (parted.table != "parted").then_some(5),
            (shop != "shop").then_some(6),
            away.then_some(7),
            (account.column(1).0 != "tenant_id").then_some(1),
            (parted.column(1).0 != "tenant_id").then_some(8),
        ];
        let urgent = urgent.into_iter().flatten().next();
        let what = urgent.filter(|_| random.random_bool(0.8)).unwrap_or_else(|| random.random_range(0..13));
        let sql = match what {
            // The partition that is away would not fit any more.
            0 | 2 | 3 | 8 if away => format!("ALTER TABLE {} SET (fillfactor = 90)", account.name()),
            0 => table.rename(4),
            1 => account.rename(1),
            8 => parted.rename(1),
            2 => match table.columns.iter().find(|c| c.0 > 5) {
                Some((_, extra, _)) => format!("ALTER TABLE {name} DROP COLUMN {extra}"),
                None if random.random_bool(0.5) => {
                    fill = format!("'{}'", random.random_range(0..9));
                    format!("ALTER TABLE {name} ADD COLUMN extra int DEFAULT {}", fill.trim_matches('\''))
                }
                None => format!("ALTER TABLE {name} ADD COLUMN extra text"),
            },
            3 => {
                let (measure, type_) = table.column(5);
                let to = match type_ {
                    "integer" => "bigint",
                    "bigint" if self.strength.retype => "text",
                    _ => "integer",
                };
                format!(
                    "ALTER TABLE {name} ALTER {measure} DROP DEFAULT, ALTER {measure} TYPE {to} USING {measure}::{to}, ALTER {measure} SET DEFAULT '1'"
                )
            }
            4 => format!("ALTER TABLE {} RENAME TO {}", account.name(), other_name(&account.table)),
            5 => format!("ALTER TABLE {} RENAME TO {}", parted.name(), other_name(&parted.table)),
            6 => format!("ALTER SCHEMA {shop} RENAME TO {}", other_name(shop)),
            // Under another name, so that nobody writes to it by the one it has as a partition.
            7 if away => format!(
                "ALTER TABLE {shop}.parted_2_away RENAME TO parted_2;
                 ALTER TABLE {} ATTACH PARTITION {shop}.parted_2 FOR VALUES FROM (40) TO (60)",
                parted.name()
            ),
            7 => format!(
                "ALTER TABLE {} DETACH PARTITION {shop}.parted_2; ALTER TABLE {shop}.parted_2 RENAME TO parted_2_away",
                parted.name()
            ),
            9 => format!("DROP INDEX IF EXISTS {}.{logical}_storm", table.schema),
            10 => format!("CREATE INDEX IF NOT EXISTS {logical}_storm ON {name} (n)"),
            11 => format!("REINDEX TABLE {}", account.name()),
            _ => format!("ALTER TABLE {name} ALTER n SET DEFAULT {}", random.random_range(0..5)),
        };
        // A write in the same transaction, before and after.
        let write = |n: u32| match logical {
            "account" => format!(
                "INSERT INTO {name} VALUES ('a', {n}) ON CONFLICT DO NOTHING; UPDATE {name} SET n = {n} WHERE id = {n}"
            ),
            _ => "SELECT".into(),
        };
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '300ms'")?;
        if random.random_bool(0.3) {
            client.batch_execute(&write(random.random_range(0..60)))?;
        }
        if random.random_bool(0.2) {
            client.batch_execute(&format!("SAVEPOINT tried; {sql}; ROLLBACK TO tried"))?;
        }
        client.batch_execute(&sql)?;
        client.batch_execute(&format!(
            "SELECT mark('account', {}, {fill}), mark('parted', {}, {fill})",
            account.oid, parted.oid
        ))?;
        if random.random_bool(0.3) {
            let renamed = Definition::of(client, "account")?.name() != account.name();
            client.batch_execute(&if renamed { "SELECT".into() } else { write(random.random_range(0..60)) })?;
        }
        match random.random_range(0..10) {
            0 => client.batch_execute("ROLLBACK")?,
            _ => {
                client.batch_execute("COMMIT")?;
                self.counts.add("definitions changed");
            }
        }
        Ok(())
    }

    /// VACUUM, ANALYZE and the like, of the tables and of the log.
    pub(super) fn tidy(&self, mut random: StdRng, until: Instant) {
        const WHAT: [&str; 9] = [
            "VACUUM account",
            "VACUUM FULL account",
            "VACUUM ANALYZE shop.parted",
            "ANALYZE",
            "VACUUM custody.entry",
            "VACUUM FULL shop.tally",
            "CLUSTER movement USING movement_pkey",
            "CHECKPOINT",
            "REINDEX TABLE custody.entry",
        ];
        let mut client = None;
        while self.goes_on(until) {
            let Some(session) = client.as_mut() else {
                client = self.connect(SUPERUSER);
                continue;
            };
            let what = WHAT[random.random_range(0..WHAT.len())];
            match session.batch_execute(what) {
                Ok(()) => self.counts.add("tidied"),
                Err(error) => {
                    if !matches!(self.judge(&error), Verdict::GoesOn) {
                        client = None;
                    }
                }
            }
            thread::sleep(Duration::from_millis(random.random_range(20..300)));
        }
    }

    /// Verifies while everybody writes: never a false alarm.
    pub(super) fn verify_meanwhile(&self, until: Instant) {
        let mut client = None;
        while self.goes_on(until) {
            thread::sleep(Duration::from_millis(500));
            let Some(session) = client.as_mut() else {
                client = Some(self.unharmed());
                continue;
            };
            match self.findings(session, None) {
                Ok(findings) if findings.is_empty() => self.counts.add("verified meanwhile"),
                Ok(findings) => self.is_wrong(format!("while others write: {}", findings.join("; "))),
                Err(error) => {
                    if !matches!(self.judge(&error), Verdict::GoesOn) {
                        client = None;
                    }
                }
            }
        }
    }
}
