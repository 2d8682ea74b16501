//! Chapter 6: a gate for CI, that fails while anything is open.

use custody_harness::{Result, SUPERUSER};

use crate::isolation::APP;
use crate::story::Story;
use crate::{DATABASE, expect, print};

pub fn tell(story: &mut Story<'_>) -> Result<()> {
    print::chapter(6, "The gate");
    print::section("Where we are");
    gate(story, true)?;
    print::section("A release goes out, in a hurry");
    let root = &mut story.root;
    for sql in [
        "CREATE SCHEMA billing;",
        "CREATE TABLE billing.invoices (organization_id uuid, id uuid, patient_id uuid, amount numeric(12, 2), PRIMARY KEY (organization_id, id));",
        "CREATE TABLE billing.tariffs (code text PRIMARY KEY, amount numeric(12, 2));",
        "CREATE VIEW billing.debtors AS SELECT organization_id, id, first_name, last_name FROM clinic.patients;",
    ] {
        root.run(sql)?;
    }
    root.run(&format!("GRANT USAGE ON SCHEMA billing TO {APP};"))?;
    root.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON billing.invoices, billing.tariffs TO {APP};"))?;
    root.run(&format!("GRANT SELECT ON billing.debtors TO {APP};"))?;
    let patients = "SELECT count(*) AS patients, count(DISTINCT organization_id) AS tenants FROM billing.debtors;";
    let mut app = story.session(APP)?;
    let leak = app.show(patients)?;
    let everybody = story.root.number("SELECT count(*) FROM clinic.patients")?;
    expect::equal(
        "this is what it is about: without any context, the new view shows every patient of every tenant",
        everybody,
        leak.number(0, 0)?,
    )?;

    let root = &mut story.root;
    let open = root.show("SELECT * FROM custody.unprotected_tables();")?;
    let names: Vec<&str> = (0..open.rows.len()).map(|i| open.cell(i, 1)).collect();
    expect::equal("the two tables are reported", "invoices tariffs", &names.join(" "))?;
    let findings = root.show(
        "SELECT id, severity, object, fix FROM custody.coverage() WHERE severity IN ('critical', 'high', 'medium');",
    )?;
    for object in ["billing.invoices", "billing.tariffs", "billing.debtors"] {
        if !(0..findings.rows.len()).any(|i| findings.cell(i, 2) == object && findings.cell(i, 1) == "critical") {
            expect::unmet("coverage finds each of the three", format!("a critical finding for {object}"), "none")?;
        }
    }
    print::holds("all three are critical findings, each with SQL that fixes it");
    gate(story, false)?;

    print::section("Fixed");
    let root = &mut story.root;
    root.run("SELECT count(*) FROM custody.protect('billing.invoices', 'organization_id');")?;
    root.run("SELECT custody.register_shared('billing.tariffs', 'one price list for all');")?;
    root.run("ALTER VIEW billing.debtors SET (security_invoker = on);")?;
    let seen = app.show(patients)?;
    expect::equal("the view shows what its reader may see: here, nothing", 0, seen.number(0, 0)?)?;
    gate(story, true)
}

/// Runs the real thing, as a pipeline would.
fn gate(story: &Story<'_>, open: bool) -> Result<()> {
    const ARGUMENTS: [&str; 5] = ["-X", "-v", "ON_ERROR_STOP=1", "-c", "select custody.assert_coverage()"];
    print::shell("psql -X -v ON_ERROR_STOP=1 -c 'select custody.assert_coverage()'");
    let output = story.cluster.client("psql", DATABASE, SUPERUSER, &ARGUMENTS).env_remove("PGOPTIONS").output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print::output(said.trim_end());
    let status = output.status.code().ok_or("psql was killed")?;
    match open {
        true => expect::equal("exit status 0: the pipeline goes on", 0, status),
        false => {
            let complete =
                ["billing.invoices", "billing.tariffs", "billing.debtors"].iter().all(|object| said.contains(object));
            expect::holds(
                &format!("exit status {status}: the pipeline stops, and says why"),
                status != 0 && complete,
                format!("exit status {status}"),
            )
        }
    }
}
