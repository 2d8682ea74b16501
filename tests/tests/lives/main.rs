//! Lives of a database: dumped and restored, backed up and recovered, cloned, promoted, upgraded, collected elsewhere. After each,
//! verification says what is true, a new life has its record, and no chain of the old one is forked.

mod backups;
mod dumps;
mod elsewhere;
mod failover;
mod standby;

use custody_harness::{Cluster, SUPERUSER};
use custody_tests::{Session, installation};

/// What everything here works on: a clinic with two patients, whose application may act for two tenants.
const CLINIC: &str = "CREATE EXTENSION pg_custody;
    REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC;
    CREATE SCHEMA clinic;
    CREATE TABLE clinic.patients (tenant_id text, id int, name text, PRIMARY KEY (tenant_id, id));
    SELECT custody.create_tenant('a', 'Clinic A'), custody.create_tenant('b', 'Clinic B');
    SELECT custody.protect('clinic.patients'), custody.audit('clinic.patients');
    CREATE ROLE app LOGIN IN ROLE custody_app;
    CREATE ROLE auditor LOGIN IN ROLE custody_auditor;
    GRANT USAGE ON SCHEMA clinic TO app, auditor;
    GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients TO app;
    SELECT custody.allow_assume('app', ARRAY['a', 'b']);
    INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('b', 1, 'Bo')";

/// A cluster of our own with the clinic in it.
fn clinic(settings: &[&str]) -> Cluster {
    let cluster = Cluster::temporary(&installation(), settings).unwrap();
    superuser(&cluster).batch(CLINIC);
    cluster
}

fn session(cluster: &Cluster, user: &str) -> Session {
    Session(cluster.connect("postgres", user).unwrap())
}

fn superuser(cluster: &Cluster) -> Session {
    session(cluster, SUPERUSER)
}

/// The summary of a verification.
fn summary(s: &mut Session) -> String {
    s.one("SELECT verdict || ': ' || detail FROM custody.verify() LIMIT 1")
}

/// What verification finds, held against notes from outside.
fn held_against(s: &mut Session, notes: &[String]) -> Vec<String> {
    // That a key took over from a lost one is to be known, and makes nothing invalid.
    let asked =
        "SELECT verdict, detail FROM custody.verify(checkpoints => $1) WHERE verdict <> 'key_recovered' OFFSET 1";
    let found = s.rows(asked, &[&notes]);
    let mut verdicts: Vec<String> = found.iter().map(|r| r.get(0)).collect();
    verdicts.dedup();
    verdicts
}

/// Makes a checkpoint, and gives its note.
fn checkpoint(s: &mut Session) -> String {
    s.batch("CALL custody.checkpoint()");
    s.one("SELECT note FROM custody.checkpoints WHERE incarnation = (SELECT incarnation FROM custody.instance) ORDER BY size DESC LIMIT 1")
}

/// The ends of all chains, to be kept outside.
fn heads(s: &mut Session) -> serde_json::Value {
    s.one("SELECT jsonb_agg(h) FROM custody.heads() h")
}

/// What verification finds, held against kept heads.
fn held_against_heads(s: &mut Session, heads: &serde_json::Value) -> Vec<String> {
    s.rows("SELECT verdict FROM custody.verify(heads => $1) OFFSET 1", &[heads]).iter().map(|r| r.get(0)).collect()
}

/// The lives that the database knows, as reason and whether the parent is known, the first one first.
fn lives(s: &mut Session) -> Vec<String> {
    s.rows("SELECT reason || CASE WHEN parent IS NULL THEN '' ELSE ', goes on from another' END FROM custody.incarnation ORDER BY started_at", &[])
        .iter()
        .map(|r| r.get(0))
        .collect()
}

/// It isolates and records as the original does: what a restored database is for.
fn assert_alive(s: &mut Session, app: &mut Session) {
    assert_eq!(app.count("clinic.patients"), 0, "no context, no rows");
    assert_eq!(app.fails("DELETE FROM clinic.patients"), "UC001");
    let before = s.count("custody.entry");
    app.as_tenant("a", "INSERT INTO clinic.patients (id, name) VALUES (1000, 'new')");
    app.batch("BEGIN; SELECT custody.assume_tenant('b')");
    assert_eq!(app.count("clinic.patients WHERE tenant_id = 'a'"), 0);
    assert_eq!(app.fails("INSERT INTO clinic.patients VALUES ('a', 1001, 'x')"), "42501");
    app.batch("ROLLBACK");
    // The new entry is in a life of its own, beside the first of that life if it was due.
    assert!(s.count("custody.entry") > before);
    let chain = "custody.log l JOIN custody.instance i USING (incarnation) WHERE l.tenant = 'a' AND l.op = 'INSERT' AND l.new ->> 'id' = '1000' AND l.signed_at IS NOT NULL";
    assert_eq!(s.count(chain), 1);
    let note = checkpoint(s);
    s.batch("SELECT custody.run_verification()");
    assert_eq!(s.one::<String>("SELECT verdict FROM custody.verifications ORDER BY id DESC LIMIT 1"), "valid");
    assert_eq!(held_against(s, &[note]), Vec::<String>::new());
    app.as_tenant("a", "DELETE FROM clinic.patients WHERE id = 1000");
    assert_eq!(s.verify("").0, "valid");
}

/// What is wrong with isolation here, by the gate's own account.
fn coverage(s: &mut Session) -> Vec<String> {
    s.rows("SELECT id || ' ' || object FROM custody.coverage() WHERE severity IN ('critical', 'high', 'medium') ORDER BY 1", &[])
        .iter()
        .map(|r| r.get(0))
        .collect()
}
