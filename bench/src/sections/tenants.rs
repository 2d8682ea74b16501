//! Thirty-two writers of one tenant, and of thirty-two: whether auditing makes writers of one tenant wait for one another.

use custody_harness::Result;

use crate::contestant::{Bench, Contestant, Database};
use crate::pgbench::{Run, Script};
use crate::report::{Line, Report, Target};

const CLIENTS: u32 = 32;
const ROWS: u32 = 1000;

/// Each client writes rows of its own, so that they never wait for the same row.
const SCRIPT: &str = r"\set tenant :client_id * :apart
\set row random(1, 1000)
\set amount random(-500, 500)
BEGIN;
SELECT custody.assume_tenant('t' || :tenant);
UPDATE account SET balance = balance + :amount WHERE tenant_id = 't' || :tenant AND client = :client_id AND id = :row;
INSERT INTO booking (client, account, amount, at) VALUES (:client_id, :row, :amount, now());
COMMIT;
";

/// A database whose rows belong to one tenant, or each client's to one of its own.
fn database(bench: &Bench, apart: u32) -> Result<Database<'_>> {
    let schema = format!(
        "CREATE TABLE account (tenant_id text, client int, id int, balance bigint NOT NULL, PRIMARY KEY (tenant_id, client, id)) WITH (fillfactor = 50);
         CREATE TABLE booking (tenant_id text, id bigserial, client int NOT NULL, account int NOT NULL, amount int NOT NULL, at timestamptz NOT NULL,
           PRIMARY KEY (id));
         INSERT INTO account SELECT 't' || c * {apart}, c, i, 0 FROM generate_series(0, {CLIENTS} - 1) c, generate_series(1, {ROWS}) i;
         SELECT custody.create_tenant('t' || i, 'Tenant ' || i) FROM generate_series(0, {CLIENTS} - 1) i;
         SELECT custody.protect('account'), custody.protect('booking');
         CREATE ROLE writer{apart} LOGIN IN ROLE custody_app;
         GRANT SELECT, INSERT, UPDATE ON account, booking TO writer{apart};
         GRANT USAGE ON SEQUENCE booking_id_seq TO writer{apart};
         SELECT custody.allow_assume('writer{apart}', ARRAY(SELECT 't' || i FROM generate_series(0, {CLIENTS} - 1) i))"
    );
    bench.database(Contestant::Custody, &schema, &["account", "booking"])
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let databases = [(1, "32 tenants", database(bench, 1)?), (0, "one tenant", database(bench, 0)?)];
    let script = Script::new("tenants", SCRIPT)?;
    let mut line = Line::new(format!("{CLIENTS} clients, protected and audited"), "tps", "32 tenants")
        .target("one tenant", Target::AtLeast(0.95));
    for round in 0..bench.rounds(5) {
        for (apart, name, database) in &databases {
            database.settle(&mut database.connect()?, &["account"])?;
            let user = format!("writer{apart}");
            let run = Run::on(database).user(&user).clients(CLIENTS).seconds(bench.duration(5)).seed(round);
            line.sample(name, run.set("apart", apart).script(&script).measure()?.tps);
        }
        println!("{}", line.progress());
    }
    report.add(line);
    Ok(())
}
