//! What verification takes, against the least it could: hashing the same bytes, checking the same signatures.

use std::process::Command;
use std::time::Instant;

use custody_harness::{Result, must};
use ed25519_dalek::{Signature, VerifyingKey};
use postgres::Client;

use crate::contestant::{Bench, Contestant, Database};
use crate::memory::Watch;
use crate::pgbench::{Run, Script};
use crate::report::{Line, Report, Target};
use crate::sections::bulk;
use crate::timing::one;

const ENTRIES: u32 = 1_000_000;
const TRANSACTIONS: u32 = 100_000;

/// The bytes that are hashed to verify the log, added up as docs/format.md, sections 1, 3 and 4, has them.
const BYTES: &str = "SELECT sum(
      18 + CASE WHEN row_salt IS NULL THEN 1 ELSE 5 + length(row_salt) END
      + coalesce(5 + octet_length(row_key), 1) + coalesce(5 + octet_length(old), 1) + coalesce(5 + octet_length(new), 1)
    + CASE WHEN actor_seq = seq THEN 20 + 5 + length(actor_salt) + 5 + octet_length(actor) ELSE 0 END
    + 20 + 37 + 21 + 5 + octet_length(tenant) + 7 * 13 + 5 + octet_length(op)
      + coalesce(5 + octet_length(schema_name), 1) + coalesce(5 + octet_length(table_name), 1)
      + 5 + octet_length(login_role) + 5 + octet_length(acting_role) + CASE WHEN move_id IS NULL THEN 1 ELSE 21 END
      + 6 + coalesce(5 + octet_length(key_id), 1) + CASE WHEN actor_digest IS NULL THEN 1 ELSE 37 END + 37)::bigint FROM custody.entry";

/// How a session says how many cores verification may use, if this version can.
fn workers_setting(client: &mut Client) -> Result<Option<String>> {
    client.batch_execute("LOAD 'pg_custody'")?;
    let rows = client.query("SELECT name FROM pg_settings WHERE name LIKE 'custody.verify%workers'", &[])?;
    Ok(rows.first().map(|row| row.get(0)))
}

struct Walk {
    seconds: f64,
    memory: f64,
}

/// One verification in a session of its own. The verdict must be good.
fn walk(database: &Database<'_>, workers: Option<(&str, usize)>) -> Result<Walk> {
    let mut client = database.connect()?;
    client.batch_execute("LOAD 'pg_custody'")?;
    if let Some((setting, workers)) = workers {
        client.batch_execute(&format!("SET {setting} = {workers}"))?;
    }
    let watch = Watch::of(&mut client)?;
    let begun = Instant::now();
    let row = client.query("SELECT verdict, detail FROM custody.verify()", &[])?.swap_remove(0);
    let seconds = begun.elapsed().as_secs_f64();
    let memory = watch.growth()?;
    match row.get::<_, &str>(0) {
        "valid" => Ok(Walk { seconds, memory }),
        verdict => Err(format!("verification says {verdict}: {}", row.get::<_, &str>(1)).into()),
    }
}

/// With one core, and with those there are.
struct Verifications<'a> {
    setting: Option<&'a str>,
    cores: usize,
    many: String,
}

impl Verifications<'_> {
    fn sample(&self, database: &Database<'_>, line: &mut Line, memory: &mut Line) -> Result<()> {
        let one = walk(database, self.setting.map(|s| (s, 1)))?;
        line.sample("verify, one core", one.seconds);
        memory.sample("one core", one.memory);
        if let Some(setting) = self.setting {
            let many = walk(database, Some((setting, self.cores)))?;
            line.sample(&self.many, many.seconds);
            memory.sample(&self.many, many.memory);
        }
        Ok(())
    }

    fn limited(&self, line: Line, limit: f64) -> Line {
        let cores = self.cores as f64;
        match self.setting {
            // Scaling with cores: at least four fifths of what they could give.
            Some(_) => line
                .target("verify, one core", Target::AtMost(limit))
                .target(&self.many, Target::AtMost(limit / (0.8 * cores))),
            None => line
                .target("verify, one core", Target::AtMost(limit))
                .note("this version has no setting for the cores that verification uses"),
        }
    }
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let setting = {
        let database = bench.database(Contestant::Custody, "", &[])?;
        workers_setting(&mut database.connect()?)?
    };
    let cores = std::thread::available_parallelism()?.get();
    let verifications = Verifications { setting: setting.as_deref(), cores, many: format!("verify, {cores} cores") };
    for tenants in [1, 4] {
        bytes(bench, report, &verifications, tenants)?;
    }
    signatures(bench, report, &verifications)
}

/// Entries of one transaction, in one chain or several.
fn bytes(bench: &Bench, report: &mut Report, verifications: &Verifications<'_>, tenants: u32) -> Result<()> {
    let schema = format!(
        "{}; ALTER TABLE item ADD COLUMN tenant_id text;
         SELECT custody.create_tenant('t' || i, 't' || i) FROM generate_series(0, {tenants} - 1) i",
        bulk::TABLE
    );
    let database = bench.database(Contestant::Custody, &schema, &[])?;
    let mut client = database.connect()?;
    client.batch_execute("SELECT custody.protect('item'); SELECT custody.audit('item')")?;
    client.batch_execute(&format!(
        "INSERT INTO item SELECT r.*, 't' || r.id % {tenants} FROM ({}) r (id)",
        bulk::rows(ENTRIES)
    ))?;
    database.settle(&mut client, &["ANALYZE custody.entry"])?;
    let bytes: i64 = one(&mut client, BYTES)?;
    let entries: i64 = one(&mut client, "SELECT count(*) FROM custody.entry")?;
    let file = std::env::temp_dir().join(format!("custody-bench-{}-bytes", std::process::id()));
    must(Command::new("sh").arg("-c").arg(format!("head -c {bytes} /dev/urandom > '{}'", file.display())))?;
    let what = format!("{entries} entries, {} MB hashed, {tenants} tenants' chains in one transaction", bytes >> 20);
    let mut line = verifications.limited(Line::new(what, "s", "openssl dgst -sha256"), 2.0);
    let mut memory = Line::new(format!("memory of the verifying backend, {entries} entries"), "MB", "one core");
    for _ in 0..bench.rounds(3) {
        let begun = Instant::now();
        must(Command::new("openssl").args(["dgst", "-sha256"]).arg(&file))?;
        line.sample("openssl dgst -sha256", begun.elapsed().as_secs_f64());
        verifications.sample(&database, &mut line, &mut memory)?;
        println!("{}", line.progress());
    }
    std::fs::remove_file(&file)?;
    report.add(line);
    report.add(memory);
    Ok(())
}

/// Transactions of one entry each; and verification while others write more of them.
fn signatures(bench: &Bench, report: &mut Report, verifications: &Verifications<'_>) -> Result<()> {
    let schema = "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL)";
    let database = bench.database(Contestant::Custody, schema, &["item"])?;
    let script = Script::new("single", "INSERT INTO item (name) VALUES ('item ' || :client_id);\n")?;
    let clients = 4;
    let write = || Run::on(&database).clients(clients).option("synchronous_commit=off").script(&script);
    write().transactions((TRANSACTIONS / clients).into()).measure()?;
    let mut client = database.connect()?;
    database.settle(&mut client, &["ANALYZE custody.entry"])?;
    let signed = signed(&mut client)?;
    let what = format!("{} single-row transactions", signed.len());
    let mut line = verifications.limited(Line::new(&what, "s", "verify_strict alone"), 1.3);
    let mut memory = Line::new(format!("memory of the verifying backend, {what}"), "MB", "one core");
    for _ in 0..bench.rounds(3) {
        let begun = Instant::now();
        if !signed.iter().all(|(key, message, signature)| key.verify_strict(message, signature).is_ok()) {
            return Err("a signature does not hold".into());
        }
        line.sample("verify_strict alone", begun.elapsed().as_secs_f64());
        verifications.sample(&database, &mut line, &mut memory)?;
        println!("{}", line.progress());
    }
    let mut beside = Line::new(format!("{what}, while {clients} clients write more"), "s", "nobody writes")
        .note("the verdict was valid every time");
    for _ in 0..bench.rounds(2) {
        beside.sample("nobody writes", walk(&database, None)?.seconds);
        let _writers = write().seconds(600).beside()?;
        beside.sample("four clients write", walk(&database, None)?.seconds);
        println!("{}", beside.progress());
    }
    report.add(line);
    report.add(memory);
    report.add(beside);
    Ok(())
}

/// Every signature of the log, with the key and the message it is over (docs/format.md, section 5).
fn signed(client: &mut Client) -> Result<Vec<(VerifyingKey, Vec<u8>, Signature)>> {
    let sql = "SELECT k.public_key, 'pg_custody/run/v1'::bytea || '\\x00' || e.hash, e.signature
               FROM custody.entry e JOIN custody.signing_key k USING (key_id, incarnation)
               WHERE e.signs_run ORDER BY e.tenant, e.incarnation, e.lane, e.seq";
    let mut signed = Vec::new();
    let mut known: Option<(Vec<u8>, VerifyingKey)> = None;
    for row in client.query(sql, &[])? {
        let bytes: Vec<u8> = row.get(0);
        let key = match &known {
            Some((of, key)) if *of == bytes => *key,
            _ => VerifyingKey::from_bytes(bytes.as_slice().try_into()?)?,
        };
        known = Some((bytes, key));
        signed.push((key, row.get(1), Signature::from_slice(row.get(2))?));
    }
    Ok(signed)
}
