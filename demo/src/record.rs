//! Chapter 4: everything that changes is recorded, whoever changes it and however.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use custody_harness::{Cluster, Result};
use postgres::Client;
use postgres::types::ToSql;
use uuid::Uuid;

use crate::clinic::{CHECK_UP, HEART_RATE, HYPERTENSION, LISINOPRIL, by_tenant};
use crate::isolation::APP;
use crate::rng::Rng;
use crate::session::described;
use crate::story::{Story, seconds};
use crate::token::Token;
use crate::{DATABASE, expect, print};

const SESSIONS_PER_TENANT: usize = 2;
const ROUNDS: usize = 4;

pub fn tell(story: &mut Story<'_>) -> Result<()> {
    print::chapter(4, "The record");
    audit(story)?;
    let shared = shared_patients(story)?;
    let done = work(story, &shared)?;
    compare(story, &done)?;
    one_transaction(story, &done)?;
    one_patient(story, shared[0])?;
    who_sees_what(story, &done)?;
    bulk(story)
}

fn audit(story: &mut Story<'_>) -> Result<()> {
    print::section("Audit the tables");
    for table in by_tenant() {
        let redact = if table == "patients" { ", redact => '{national_id}'" } else { "" };
        story.root.run(&format!("SELECT custody.audit('clinic.{table}'{redact});"))?;
    }
    let gaps = story.root.number("SELECT count(*) FROM custody.capture_gap")?;
    let audited = story.root.number("SELECT count(*) FROM custody.audited_table")?;
    expect::equal(
        "five tables are audited, and every capture trigger is in force",
        "5 audited, 0 gaps".into(),
        format!("{audited} audited, {gaps} gaps"),
    )?;
    let mut there = 0;
    for table in by_tenant() {
        there += story.root.number(&format!("SELECT count(*) FROM clinic.{table}"))?;
    }
    let baseline = story.root.number("SELECT count(*) FROM custody.log WHERE op = 'BASELINE'")?;
    expect::equal("history starts from the rows that were there: one entry each", there, baseline)
}

const PATIENT: &str = "INSERT INTO clinic.patients (id, first_name, last_name, birth_date, national_id, city) VALUES ($1, 'Nora', $2, '1971-03-09', $3, 'Ashford')";
const ENCOUNTER: &str =
    "INSERT INTO clinic.encounters (id, patient_id, class, code, started_at) VALUES ($1, $2, 'wellness', $3, now())";
const CONDITION: &str =
    "INSERT INTO clinic.conditions (id, encounter_id, code, onset) VALUES ($1, $2, $3, current_date)";
const MEDICATION: &str =
    "INSERT INTO clinic.medications (id, encounter_id, code, started_at, dispenses) VALUES ($1, $2, $3, now(), 3)";
const OBSERVATION: &str =
    "INSERT INTO clinic.observations (id, encounter_id, code, observed_at, category, value, units)
VALUES ($1, $2, $3, now(), 'vital-signs', $4, '/min')";
const UPSERT: &str = "INSERT INTO clinic.observations (id, encounter_id, code, observed_at, category, value, units)
VALUES ($1, $2, $3, now(), 'vital-signs', $4, '/min')
ON CONFLICT (organization_id, id) DO UPDATE SET value = excluded.value";
const MERGE: &str =
    "MERGE INTO clinic.medications m USING (VALUES ($1::uuid), ($2::uuid)) AS given (id) ON m.id = given.id
WHEN MATCHED THEN UPDATE SET stopped_at = now()
WHEN NOT MATCHED THEN INSERT (id, encounter_id, code, started_at, dispenses) VALUES (given.id, $3, $4, now(), 1)";
const MOVE_HOUSE: &str = "UPDATE clinic.patients SET city = $2 WHERE id = $1";
const DISCHARGE: &str = "DELETE FROM clinic.patients WHERE id = $1";
/// Everything that goes with a patient, by the foreign keys.
const DEPENDENTS: &str = "WITH e AS (SELECT id FROM clinic.encounters WHERE patient_id = $1)
SELECT (SELECT count(*) FROM e) + (SELECT count(*) FROM clinic.conditions WHERE encounter_id IN (TABLE e))
     + (SELECT count(*) FROM clinic.medications WHERE encounter_id IN (TABLE e)) + (SELECT count(*) FROM clinic.observations WHERE encounter_id IN (TABLE e))";

/// What a session changed and committed.
#[derive(Default)]
struct Done {
    tenant: String,
    /// Rows by operation.
    rows: BTreeMap<&'static str, i64>,
    /// The transaction that admitted the last patient.
    admission: i64,
}

impl Done {
    fn add(&mut self, op: &'static str, rows: i64) {
        *self.rows.entry(op).or_default() += rows;
    }
}

/// One patient of each tenant, whom all its sessions will work on.
fn shared_patients(story: &mut Story<'_>) -> Result<Vec<Uuid>> {
    let Story { root, cast, .. } = story;
    let first =
        |tenant: &str| format!("SELECT id FROM clinic.patients WHERE organization_id = '{tenant}' ORDER BY id LIMIT 1");
    cast.iter().map(|tenant| Ok(root.one(&first(&tenant.id))?.parse()?)).collect()
}

fn work(story: &Story<'_>, shared: &[Uuid]) -> Result<Vec<Done>> {
    print::section(&format!("{} sessions of {APP} at once, of three tenants", 3 * SESSIONS_PER_TENANT));
    print::text(&format!(
        "Each session, {ROUNDS} times over, in transactions of its own, each begun with custody.authenticate($1):"
    ));
    for line in [
        "BEGIN; INSERT a patient, an encounter, a condition, a medication, two observations; COMMIT",
        "BEGIN; UPDATE the one patient that every session of the tenant works on; COMMIT",
        "BEGIN; INSERT … ON CONFLICT DO UPDATE, of an observation that is there and of one that is not; COMMIT",
        "BEGIN; MERGE INTO medications, of one that is there and of one that is not; COMMIT",
        "BEGIN; INSERT an observation, UPDATE the shared patient; ROLLBACK",
        "BEGIN; UPDATE a patient; SAVEPOINT s; DELETE that patient; ROLLBACK TO s; INSERT an observation; COMMIT",
        "BEGIN; DELETE a patient, and with it all that refers to it, by ON DELETE CASCADE; COMMIT     (every other time)",
    ] {
        print::text(&format!("  • {line}"));
    }
    let mut jobs = Vec::new();
    for (i, patient) in shared.iter().enumerate() {
        for n in 0..SESSIONS_PER_TENANT {
            let subject = ["dr.okafor", "nurse.lind", "dr.chen", "nurse.diaz", "dr.weber", "nurse.sato"]
                [(SESSIONS_PER_TENANT * i + n) % 6];
            jobs.push((story.token(subject, i), *patient, Rng::new(1_000 + (SESSIONS_PER_TENANT * i + n) as u64)));
        }
    }
    let begun = Instant::now();
    let cluster = story.cluster;
    let done = std::thread::scope(|scope| {
        let running: Vec<_> = jobs
            .into_iter()
            .map(|(token, patient, rng)| scope.spawn(move || day(cluster, &token, patient, rng)))
            .collect();
        running.into_iter().map(|job| job.join().map_err(|_| "a session panicked")?).collect::<Result<Vec<Done>>>()
    })?;
    print::text(&format!("Done in {}.", seconds(begun.elapsed())));
    Ok(done)
}

/// One session's work. What it counts is what it was told it changed, or saw that would go with it.
fn day(cluster: &Cluster, token: &Token, shared: Uuid, mut rng: Rng) -> Result<Done> {
    let mut session =
        Worker { client: cluster.config(DATABASE, APP).application_name("clinic").connect(postgres::NoTls)?, token };
    let mut done = Done { tenant: token.tenant.clone(), ..Done::default() };
    for round in 0..ROUNDS {
        let [patient, encounter, medication, observation] = std::array::from_fn(|_| rng.uuid());
        let rate = |rng: &mut Rng| rng.between(60, 90).to_string();
        let city = format!("City {}", rng.next() % 100_000);

        session.begin()?;
        session.one_row(
            PATIENT,
            &[&patient, &format!("Admitted-{round}"), &format!("9{:02}-11-{:04}", round, rng.between(0, 9_999))],
        )?;
        session.one_row(ENCOUNTER, &[&encounter, &patient, &CHECK_UP])?;
        session.one_row(CONDITION, &[&rng.uuid(), &encounter, &HYPERTENSION])?;
        session.one_row(MEDICATION, &[&medication, &encounter, &LISINOPRIL])?;
        session.one_row(OBSERVATION, &[&observation, &encounter, &HEART_RATE, &rate(&mut rng)])?;
        session.one_row(OBSERVATION, &[&rng.uuid(), &encounter, &HEART_RATE, &rate(&mut rng)])?;
        done.admission = session.client.query_one("SELECT pg_current_xact_id()::text::bigint", &[])?.get(0);
        session.end("COMMIT")?;
        done.add("INSERT", 6);

        session.begin()?;
        session.one_row(MOVE_HOUSE, &[&shared, &city])?;
        session.end("COMMIT")?;
        done.add("UPDATE", 1);

        session.begin()?;
        session.one_row(UPSERT, &[&observation, &encounter, &HEART_RATE, &"120"])?;
        session.one_row(UPSERT, &[&rng.uuid(), &encounter, &HEART_RATE, &rate(&mut rng)])?;
        session.end("COMMIT")?;
        done.add("UPDATE", 1);
        done.add("INSERT", 1);

        session.begin()?;
        let merged = session.run(MERGE, &[&medication, &rng.uuid(), &encounter, &LISINOPRIL])?;
        session.end("COMMIT")?;
        if merged != 2 {
            expect::unmet("MERGE changes two rows", 2, merged)?;
        }
        done.add("UPDATE", 1);
        done.add("INSERT", 1);

        session.begin()?;
        session.one_row(OBSERVATION, &[&rng.uuid(), &encounter, &HEART_RATE, &rate(&mut rng)])?;
        session.one_row(MOVE_HOUSE, &[&shared, &"Nowhere"])?;
        session.end("ROLLBACK")?;

        session.begin()?;
        session.one_row(MOVE_HOUSE, &[&patient, &city])?;
        session.client.batch_execute("SAVEPOINT s")?;
        session.one_row(DISCHARGE, &[&patient])?;
        session.client.batch_execute("ROLLBACK TO s")?;
        session.one_row(OBSERVATION, &[&rng.uuid(), &encounter, &HEART_RATE, &rate(&mut rng)])?;
        session.end("COMMIT")?;
        done.add("UPDATE", 1);
        done.add("INSERT", 1);

        if round % 2 == 1 {
            session.begin()?;
            let dependents: i64 = session.client.query_one(DEPENDENTS, &[&patient])?.get(0);
            session.one_row(DISCHARGE, &[&patient])?;
            session.end("COMMIT")?;
            done.add("DELETE", 1 + dependents);
        }
    }
    Ok(done)
}

struct Worker<'a> {
    client: Client,
    token: &'a Token,
}

impl Worker<'_> {
    fn begin(&mut self) -> Result<()> {
        self.client.batch_execute("BEGIN")?;
        self.run("SELECT custody.authenticate($1)", &[&self.token.text.clone()]).map(|_| ())
    }

    fn run(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        self.client
            .execute(sql, values)
            .map_err(|e| format!("{}, in a statement of {}:\n{sql}", described(&e), self.token.subject).into())
    }

    fn one_row(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<()> {
        match self.run(sql, values)? {
            1 => Ok(()),
            rows => expect::unmet(sql, "1 row", rows),
        }
    }

    fn end(&mut self, how: &str) -> Result<()> {
        Ok(self.client.batch_execute(how)?)
    }
}

fn compare(story: &mut Story<'_>, done: &[Done]) -> Result<()> {
    print::section("As many entries as rows that were changed for good");
    let mut expected: BTreeMap<(String, &str), i64> = BTreeMap::new();
    for d in done {
        for (op, rows) in &d.rows {
            *expected.entry((d.tenant.clone(), op)).or_default() += rows;
        }
    }
    let logged = story.root.show(
        "SELECT t.name AS tenant, l.op, count(*) AS entries, count(DISTINCT l.lane) AS lanes, count(DISTINCT l.xid) AS transactions
FROM custody.log l JOIN custody.tenants t ON t.id = l.tenant WHERE l.op <> 'BASELINE' GROUP BY t.id, t.name, l.op ORDER BY t.name, l.op;",
    )?;
    let counted = story
        .root
        .quiet("SELECT tenant, op, count(*) FROM custody.log WHERE tenant <> '' AND op <> 'BASELINE' GROUP BY 1, 2 ORDER BY 1, 2")?;
    let sum: i64 = expected.values().sum();
    let expected: Vec<String> =
        expected.into_iter().map(|((tenant, op), rows)| format!("{tenant} {op} {rows}")).collect();
    let counted: Vec<String> = (0..logged.rows.len())
        .map(|i| format!("{} {} {}", counted.cell(i, 0), counted.cell(i, 1), counted.cell(i, 2)))
        .collect();
    expect::equal(
        &format!(
            "{sum} rows changed and committed, {sum} entries, tenant by tenant and op by op; nothing of what was rolled back"
        ),
        expected.join(", "),
        counted.join(", "),
    )?;
    let unsigned = story.root.number("SELECT count(*) FROM custody.log WHERE signed_at IS NULL")?;
    expect::equal("a signature covers every one of them", 0, unsigned)?;
    let cascaded =
        story.root.number("SELECT count(*) FROM custody.log WHERE op = 'DELETE' AND table_name <> 'patients'")?;
    expect::holds(&format!("cascades included: {cascaded} rows that no statement named"), cascaded > 0, cascaded)
}

fn one_transaction(story: &mut Story<'_>, done: &[Done]) -> Result<()> {
    print::section("One transaction, as its own tenant reads it");
    let Some(mine) = done.iter().find(|d| d.tenant == story.cast[0].id) else {
        return Err("tenant A did nothing".into());
    };
    let mut app = story.session(APP)?;
    app.begin(&story.token("dr.okafor", 0))?;
    let log = app.show(&format!(
        "SELECT lane, seq, signed_at, op, table_name, login_role, subject,
  jsonb_strip_nulls(new)
    - '{{organization_id,id,patient_id,encounter_id,birth_date,started_at,observed_at,category}}'::text[] AS new
FROM custody.log WHERE xid = '{}' ORDER BY ordinal;",
        mine.admission
    ))?;
    let tables: Vec<&str> = (0..log.rows.len()).map(|i| log.cell(i, 4)).collect();
    expect::equal(
        "six rows, six entries, in the order of the statements",
        "patients encounters conditions medications observations observations",
        &tables.join(" "),
    )?;
    let redacted = app.one(&format!(
        "SELECT new ->> 'national_id' FROM custody.log WHERE xid = '{}' AND table_name = 'patients'",
        mine.admission
    ))?;
    expect::holds(
        &format!(
            "the redacted column is a keyed digest: national_id is \"{}…\"",
            redacted.get(..16).unwrap_or(&redacted)
        ),
        redacted.starts_with("hmac:") && redacted.len() == 69,
        &redacted,
    )?;
    app.end("COMMIT;")
}

fn one_patient(story: &mut Story<'_>, patient: Uuid) -> Result<()> {
    print::section("One patient's history, written by several sessions at once");
    let a = story.cast[0].clone();
    let mut app = story.session(APP)?;
    app.begin(&story.token("dr.okafor", 0))?;
    let history = app.show(&format!(
        "SELECT op, changed, old ->> 'city' AS city_before, new ->> 'city' AS city_after, subject, lane, seq
FROM custody.history('clinic.patients', '{{\"organization_id\": \"{}\", \"id\": \"{patient}\"}}');",
        a.id
    ))?;
    let rows = history.rows.len();
    expect::equal(
        "how it was when audit began, and one entry for each time the patient moved",
        1 + SESSIONS_PER_TENANT * ROUNDS,
        rows,
    )?;
    let joined = (1..rows).all(|i| history.cell(i, 2) == history.cell(i - 1, 3));
    let now = app.one(&format!("SELECT city FROM clinic.patients WHERE id = '{patient}'"))?;
    expect::holds(
        "each begins where the one before ended, across lanes, and the last is the row as it stands",
        joined && rows > 0 && history.cell(rows - 1, 3) == now,
        format!("the row says {now}"),
    )?;
    app.end("COMMIT;")
}

fn who_sees_what(story: &mut Story<'_>, done: &[Done]) -> Result<()> {
    print::section("Whose log it is");
    let own = |tenant: &str| done.iter().filter(|d| d.tenant == tenant).flat_map(|d| d.rows.values()).sum::<i64>();
    let sql = "SELECT count(*) AS entries, count(DISTINCT tenant) AS tenants FROM custody.log WHERE op <> 'BASELINE';";
    let mut app = story.session(APP)?;
    let seen = app.show(sql)?;
    expect::equal("without a context, nothing", 0, seen.number(0, 0)?)?;
    for (i, letter) in ["A", "B", "C"].iter().enumerate() {
        let tenant = story.cast[i].clone();
        app.quietly_begin(&story.token("dr.okafor", i))?;
        let seen = match i {
            0 => app.show(sql)?,
            _ => app.quiet(sql)?,
        };
        app.quietly_end("COMMIT")?;
        let expected = format!("{} entries of 1 tenant", own(&tenant.id));
        let happened = format!("{} entries of {} tenant", seen.cell(0, 0), seen.cell(0, 1));
        expect::equal(&format!("{letter} sees its own {}, and nobody else's", own(&tenant.id)), expected, happened)?;
    }
    app.refused("UPDATE custody.entry SET op = 'NOTHING';", "42501")?;
    Ok(())
}

fn bulk(story: &mut Story<'_>) -> Result<()> {
    print::section("A superuser's COPY and TRUNCATE are recorded too");
    let [a, b, c] = story.cast.clone().map(|t| t.id);
    let root = &mut story.root;
    root.run(
        "CREATE TABLE clinic.inbox (organization_id uuid, id integer, note text, PRIMARY KEY (organization_id, id));",
    )?;
    root.run("SELECT count(*) FROM custody.protect('clinic.inbox', 'organization_id');")?;
    root.run("SELECT custody.audit('clinic.inbox');")?;
    root.print("COPY clinic.inbox FROM STDIN (FORMAT csv);  -- two rows for each of A, B and C");
    let mut copy = root.client.copy_in("COPY clinic.inbox FROM STDIN (FORMAT csv)").map_err(|e| described(&e))?;
    for (i, tenant) in [&a, &b, &c, &a, &b, &c].iter().enumerate() {
        writeln!(copy, "{tenant},{i},letter {i}")?;
    }
    copy.finish().map_err(|e| described(&e))?;
    root.run("TRUNCATE clinic.inbox;")?;
    let log = root.show(
        "SELECT coalesce(t.name, '(system)') AS chain, l.op, count(*) AS entries, min(l.acting_role) AS acting_role, min(l.new::text) AS new
FROM custody.log l LEFT JOIN custody.tenants t ON t.id = l.tenant WHERE l.table_name = 'inbox' AND l.op <> 'SHAPE' GROUP BY 1, 2 ORDER BY 1, 2;",
    )?;
    let mut counts: Vec<String> =
        (0..log.rows.len()).map(|i| format!("{} {}", log.cell(i, 1), log.cell(i, 2))).collect();
    counts.sort();
    expect::equal(
        "each row is in its tenant's chain as it came and as it went, and the TRUNCATE itself in the system's",
        "INSERT 2,INSERT 2,INSERT 2,TRUNCATE 1,TRUNCATE 2,TRUNCATE 2,TRUNCATE 2".into(),
        counts.join(","),
    )
}
