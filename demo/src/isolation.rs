//! Chapter 3, first half: tables are protected, and sessions get a context.

use custody_harness::Result;

use crate::clinic::{CHECK_UP, ENCOUNTERS, PATIENTS, by_tenant};
use crate::session::Session;
use crate::story::Story;
use crate::token::{AUDIENCE, Issuer, KID, TENANT_CLAIM};
use crate::{DATABASE, expect, print};

pub const APP: &str = "clinic_app";
const DESK: &str = "riverside_desk";
const BATCH: &str = "clinic_batch";

/// A tenant that no session of the story is allowed.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

pub fn tell(story: &mut Story<'_>) -> Result<()> {
    print::chapter(3, "Isolation");
    protect(story)?;
    roles(story)?;
    by_token(story)?;
    bound(story)?;
    assumed(story)
}

fn protect(story: &mut Story<'_>) -> Result<()> {
    let root = &mut story.root;
    print::section("Protect the tables; first, see what would be done");
    root.show("SELECT step, lock, sql FROM custody.protect('clinic.patients', 'organization_id', dry_run => true);")?;
    let done = root.one("SELECT relrowsecurity FROM pg_class WHERE oid = 'clinic.patients'::regclass")?;
    expect::equal("a dry run did nothing", "f", &done)?;
    for table in by_tenant() {
        let sql = format!("SELECT count(*) AS steps FROM custody.protect('clinic.{table}', 'organization_id');");
        let did = root.run(&sql)?.number(0, 0)?;
        let again = root.number(&sql)?;
        if did == 0 || again != 0 {
            expect::unmet(
                "protecting does something, and nothing the second time",
                "steps, then 0",
                format!("{did}, then {again}"),
            )?;
        }
    }
    print::holds("asked again, custody.protect has nothing left to do");
    root.run("SELECT custody.register_shared('clinic.codes', 'SNOMED CT, RxNorm and LOINC: the same for everyone');")?;
    let protected = root.number(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'clinic'::regnamespace AND relrowsecurity AND relforcerowsecurity",
    )?;
    expect::equal("row-level security is enabled and forced on the five tables", 5, protected)
}

fn roles(story: &mut Story<'_>) -> Result<()> {
    print::section("Tenants, login roles, and the key that tokens are signed with");
    let key = story.issuer.public_key_hex();
    let Story { root, data, cast, .. } = story;
    for (i, tenant) in data.tenants.iter().enumerate() {
        let sql = format!("SELECT custody.create_tenant('{}', '{}');", tenant.id, tenant.name.replace('\'', "''"));
        match i {
            0 => root.run(&sql)?,
            _ => root.quiet(&sql)?,
        };
    }
    let registered = root.number("SELECT count(*) FROM custody.tenants")?;
    expect::equal(
        &format!("all {} tenants are registered", data.tenants.len()),
        data.tenants.len() as i64,
        registered,
    )?;
    for sql in [
        format!("CREATE ROLE {APP} LOGIN IN ROLE custody_app;"),
        format!("CREATE ROLE {DESK} LOGIN IN ROLE custody_app;"),
        format!("CREATE ROLE {BATCH} LOGIN IN ROLE custody_app;"),
        format!("GRANT USAGE ON SCHEMA clinic TO {APP}, {DESK}, {BATCH};"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON clinic.patients, clinic.encounters, clinic.conditions, clinic.medications,
  clinic.observations TO {APP}, {DESK}, {BATCH};"
        ),
        format!("GRANT SELECT ON clinic.codes TO {APP}, {DESK}, {BATCH};"),
        format!("REVOKE TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC;"),
        format!("SELECT custody.add_token_key('{KID}', '\\x{key}', audience => '{AUDIENCE}', tenant_claim => '{TENANT_CLAIM}');"),
        format!("SELECT custody.bind_role('{DESK}', '{}');  -- tenant B", cast[1].id),
        format!("SELECT custody.allow_assume('{BATCH}', ARRAY['{}', '{}']);  -- tenants A and C", cast[0].id, cast[2].id),
    ] {
        root.run(&sql)?;
    }
    let refused = root.refused("SELECT custody.bind_role('postgres', 'a');", "UC012")?;
    expect::holds("a role that row-level security does not hold cannot be bound", refused.hint().is_some(), "no hint")
}

/// How many patients a session sees, and of how many tenants.
const SEEN: &str = "SELECT count(*) AS patients, count(DISTINCT organization_id) AS tenants FROM clinic.patients;";

fn by_token(story: &mut Story<'_>) -> Result<()> {
    let [a, b, _] = story.cast.clone();
    let mut app = story.session(APP)?;
    print::section("Without a context: nothing to see, and no write passes in silence");
    for table in by_tenant() {
        let rows = app.number(&format!("SELECT count(*) FROM clinic.{table}"))?;
        if rows != 0 {
            expect::unmet(&format!("clinic.{table} shows nothing without a context"), 0, rows)?;
        }
    }
    let seen = app.show(SEEN)?;
    expect::equal("without a context every one of the five tables is empty", 0, seen.number(0, 0)?)?;
    app.refused("INSERT INTO clinic.patients (last_name, birth_date) VALUES ('Nobody', '1990-01-01');", "UC001")?;
    app.refused("UPDATE clinic.patients SET city = 'Elsewhere';", "UC001")?;
    app.refused("DELETE FROM clinic.patients;", "UC001")?;
    print::holds("INSERT, UPDATE and DELETE each raise UC001");

    print::section("With a token: this tenant, until the transaction ends");
    let token = story.token("dr.okafor", 0);
    print::text(&format!(
        "$1 is a compact JWS, signed with Ed25519 by the application's login service; its claims name the tenant ({TENANT_CLAIM}), the \
         person (sub), the audience and the expiry. It is a bind parameter, so it is in no statement text."
    ));
    app.begin(&token)?;
    let who = app.show("SELECT custody.tenant(), custody.subject(), custody.claims() ->> 'aud' AS audience;")?;
    expect::equal(
        "the context is the token's",
        format!("{} dr.okafor {AUDIENCE}", a.id),
        format!("{} {} {}", who.cell(0, 0), who.cell(0, 1), who.cell(0, 2)),
    )?;
    let seen = app.show(SEEN)?;
    let expected = format!("{} patients of 1 tenant", story.data.count(PATIENTS, &a.id));
    expect::equal(
        "all of A's patients, and nobody else's",
        expected,
        format!("{} patients of {} tenant", seen.cell(0, 0), seen.cell(0, 1)),
    )?;
    let shared = app.number("SELECT count(*) FROM clinic.codes")?;
    expect::equal("the shared codes can be read", story.data.rows[0].len() as i64, shared)?;
    app.refused("DELETE FROM clinic.codes;", "42501")?;
    app.token_refused(
        &story.token("dr.okafor", 1),
        "UC003",
        "the same person's token for tenant B, in the same transaction",
    )?;

    print::section("Other tenants are out of reach, and out of sight");
    let theirs = story
        .root
        .one(&format!("SELECT id FROM clinic.patients WHERE organization_id = '{}' ORDER BY id LIMIT 1", b.id))?;
    let insert = |id: &str| {
        format!(
            "INSERT INTO clinic.patients (organization_id, id, last_name, birth_date) VALUES\n  ('{}', '{id}', 'Planted', '1990-01-01');",
            b.id
        )
    };
    let existing = app.refused(&insert(&theirs), "42501")?;
    print::text("The same with a key that tenant B does not have:");
    let missing = app.refused(&insert(NOBODY), "42501")?;
    let told = |e: &postgres::error::DbError| {
        format!("{} {} {:?} {:?} {:?}", e.code().code(), e.message(), e.detail(), e.hint(), e.constraint())
    };
    expect::equal(
        "both refusals are the same to the letter: which keys B has is not given away",
        told(&existing),
        told(&missing),
    )?;
    let mine = app.one("SELECT id FROM clinic.patients ORDER BY id LIMIT 1")?;
    app.refused(
        &format!("UPDATE clinic.patients SET organization_id = '{}'  -- tenant B\nWHERE id = '{mine}';", b.id),
        "42501",
    )?;
    let touched = app
        .run(&format!(
            "UPDATE clinic.patients SET city = 'Elsewhere' WHERE organization_id = '{}';  -- tenant B",
            b.id
        ))?
        .affected;
    expect::equal("an UPDATE of B's rows finds none", 0, touched)?;
    let touched = app.run(&format!("DELETE FROM clinic.patients WHERE id = '{theirs}';  -- one of B's"))?.affected;
    expect::equal("a DELETE of B's rows finds none", 0, touched)?;
    let visit = format!(
        "INSERT INTO clinic.encounters (patient_id, code, started_at) VALUES ('{theirs}', '{CHECK_UP}', now());  -- B's patient"
    );
    app.refused(&visit, "23503")?;
    print::holds("a foreign key that includes the tenant cannot reach across: for A, B's patient does not exist");
    app.end("COMMIT;")?;
    let seen = app.show(SEEN)?;
    expect::equal(
        "the context ended with the transaction: a pooled connection carries nothing over",
        0,
        seen.number(0, 0)?,
    )?;

    print::section("Tokens that are not what they seem");
    app.quiet("BEGIN")?;
    app.quietly_end("ROLLBACK")?;
    app.token_refused(&token.altered(&b.id), "UC004", "A's token, its claims edited to say B")?;
    app.token_refused(
        &Issuer::impostor().token("dr.okafor", &b.id),
        "UC004",
        "a token signed with somebody else's key",
    )?;
    app.token_refused(
        &story.issuer.token_for("dr.okafor", &a.id, -1),
        "UC004",
        "an honest token of A's, expired a second ago",
    )?;
    print::holds("each raises UC004, which says why and never quotes the token");
    Ok(())
}

fn bound(story: &mut Story<'_>) -> Result<()> {
    let b = story.cast[1].clone();
    print::section(&format!("A role bound to a tenant: {DESK} needs no token, and can be nobody else"));
    let mut desk = story.session(DESK)?;
    let seen = desk.show(SEEN)?;
    expect::equal("it sees B's patients, all of them", story.data.count(PATIENTS, &b.id), seen.number(0, 0)?)?;
    let others = desk.number(&format!("SELECT count(*) FROM clinic.encounters WHERE organization_id <> '{}'", b.id))?;
    expect::equal("and nothing of anybody else's", 0, others)?;
    let token = story.token("dr.okafor", 0);
    desk.token_refused(&token, "UC002", "a good token for tenant A")?;
    print::holds("not even a good token makes it another tenant");
    Ok(())
}

fn assumed(story: &mut Story<'_>) -> Result<()> {
    let [a, b, _] = story.cast.clone();
    print::section(&format!("A role that may choose among tenants: {BATCH}, for trusted jobs without tokens"));
    let mut batch = story.session(BATCH)?;
    batch.run("BEGIN;")?;
    batch.run(&format!("SELECT custody.assume_tenant('{}');  -- tenant A", a.id))?;
    let seen = batch
        .show("SELECT count(*) AS encounters, count(DISTINCT organization_id) AS tenants FROM clinic.encounters;")?;
    expect::equal(
        "it works for A, as custody.allow_assume says",
        story.data.count(ENCOUNTERS, &a.id),
        seen.number(0, 0)?,
    )?;
    batch.run("ROLLBACK;")?;
    refused_assume(&mut batch, &b.id, "tenant B, which it was not given")?;
    let mut app = story.session(APP)?;
    refused_assume(&mut app, &a.id, "a role that was given none")
}

fn refused_assume(session: &mut Session, tenant: &str, remark: &str) -> Result<()> {
    session.refused(&format!("SELECT custody.assume_tenant('{tenant}');  -- {remark}"), "UC002")?;
    print::holds("refused");
    Ok(())
}
