//! The story, chapter by chapter. This module has the first two and the last; each of the others has a module.

use std::time::{Duration, Instant};

use custody_harness::{Cluster, Result, SUPERUSER};

use crate::clinic::{self, Data, ENCOUNTERS, TABLES, Tenant};
use crate::session::Session;
use crate::token::{Issuer, Token};
use crate::{DATABASE, expect, forgery, gate, isolation, print, record, tamper};

/// What the chapters share.
pub struct Story<'a> {
    pub cluster: &'a Cluster,
    pub data: &'a Data,
    pub issuer: Issuer,
    /// The superuser's session.
    pub root: Session,
    /// The three tenants with the most encounters, who have the speaking parts.
    pub cast: [Tenant; 3],
    /// What someone outside would have kept: the fingerprint of the signing key.
    pub pin: String,
}

impl Story<'_> {
    /// Another session.
    pub fn session(&self, who: &str) -> Result<Session> {
        Session::open(self.cluster, who)
    }

    /// A token for a clinician of a tenant.
    pub fn token(&self, subject: &str, tenant: usize) -> Token {
        self.issuer.token(subject, &self.cast[tenant].id)
    }
}

pub fn tell(cluster: &Cluster, data: &Data, begun: Instant) -> Result<()> {
    print::text(
        "pg_custody keeps the tenants of a PostgreSQL database apart (row-level security), and keeps a signed, hash-chained record of \
         what changed. This is its story, on a private cluster. Every line marked ✓ is checked by code.",
    );
    let ready = begun.elapsed();
    cluster.connect("postgres", SUPERUSER)?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
    let mut story = Story {
        cluster,
        data,
        issuer: Issuer::new(),
        root: Session::open(cluster, SUPERUSER)?,
        cast: cast(data)?,
        pin: String::new(),
    };
    install(&mut story, ready)?;
    load(&mut story)?;
    isolation::tell(&mut story)?;
    forgery::tell(&mut story)?;
    record::tell(&mut story)?;
    tamper::tell(&mut story)?;
    gate::tell(&mut story)?;
    close(&mut story, begun)
}

fn cast(data: &Data) -> Result<[Tenant; 3]> {
    let mut tenants: Vec<&Tenant> = data.tenants.iter().collect();
    tenants.sort_by_key(|t| std::cmp::Reverse(data.count(ENCOUNTERS, &t.id)));
    match tenants[..] {
        [a, b, c, ..] if data.count(ENCOUNTERS, &c.id) > 0 => Ok([a.clone(), b.clone(), c.clone()]),
        _ => Err("the story needs three organisations with encounters".into()),
    }
}

fn install(story: &mut Story<'_>, ready: Duration) -> Result<()> {
    let root = &mut story.root;
    print::chapter(1, "Install");
    let version = root.one("SELECT 'PostgreSQL ' || current_setting('server_version')")?;
    print::text(&format!(
        "{version}, a new cluster in {} (ready after {}).",
        story.cluster.socket().display(),
        seconds(ready)
    ));
    let begun = Instant::now();
    root.run("CREATE EXTENSION pg_custody;")?;
    print::output(&format!("installed in {} ms; nothing to preload, nothing to restart", begun.elapsed().as_millis()));

    let roles = root.show(
        "SELECT rolname, rolcanlogin AS login, rolsuper AS super, rolbypassrls AS bypassrls, shobj_description(oid, 'pg_authid') AS what_for
FROM pg_roles WHERE rolname LIKE 'custody%' ORDER BY 1;",
    )?;
    let harmless = roles.rows.iter().all(|r| r[1..4].iter().all(|c| c.as_deref() == Some("f")));
    expect::holds(
        "three group roles that cannot log in, and are neither SUPERUSER nor BYPASSRLS",
        roles.rows.len() == 3 && harmless,
        roles.rows.len(),
    )?;

    let objects = root.show(
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'custody'::regnamespace AND relkind = 'r') AS tables,
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'custody'::regnamespace AND relkind = 'v') AS views,
       (SELECT count(*) FROM pg_proc WHERE pronamespace = 'custody'::regnamespace) AS functions,
       (SELECT count(*) FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'custody' AND a.grantee = 0)
       + (SELECT count(*) FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) a
          WHERE relnamespace = 'custody'::regnamespace AND a.grantee = 0)
       + (SELECT count(*) FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
          WHERE pronamespace = 'custody'::regnamespace AND a.grantee = 0) AS granted_to_public;",
    )?;
    expect::equal(
        "PUBLIC has no privilege on the schema custody, or on any table, view or function in it",
        0,
        objects.number(0, 3)?,
    )?;

    root.show("SELECT key_id, created_at::timestamptz(0), fingerprint FROM custody.signing_key;")?;
    story.pin = root.one("SELECT fingerprint FROM custody.signing_key")?;
    expect::equal(
        "the key that signs the log has a fingerprint, to be kept outside the database",
        64,
        story.pin.len(),
    )?;
    Ok(())
}

fn load(story: &mut Story<'_>) -> Result<()> {
    let Story { root, data, .. } = story;
    print::chapter(2, "An application's data: clinics, who are the tenants");
    print::text(&format!("Data: {}.", data.source));
    root.print("CREATE SCHEMA clinic;  -- and six tables; the tenant is organization_id, in every key and every foreign key, like this one:");
    let encounters = clinic::SCHEMA.split(";\n").find(|s| s.contains("TABLE clinic.encounters")).unwrap_or_default();
    root.print(&format!("{encounters};"));
    root.quiet(clinic::SCHEMA)?;
    let begun = Instant::now();
    data.copy(root)?;
    root.quiet("ANALYZE")?;
    root.print("COPY clinic.patients … FROM STDIN;  -- as a superuser, before anything is protected");
    let took = begun.elapsed();
    let counts = TABLES.map(|(table, _)| match table {
        "codes" => {
            "SELECT 'codes' AS \"table\", count(*) AS rows, NULL::bigint AS tenants FROM clinic.codes".to_owned()
        }
        _ => format!("SELECT '{table}', count(*), count(DISTINCT organization_id) FROM clinic.{table}"),
    });
    let counted = root.quiet(&counts.join(" UNION ALL "))?;
    print::table(&counted);
    for (i, rows) in data.rows.iter().enumerate() {
        if counted.number(i, 1)? != rows.len() as i64 {
            expect::unmet(&format!("{} is loaded", TABLES[i].0), rows.len(), counted.cell(i, 1))?;
        }
    }
    let total: usize = data.rows.iter().map(Vec::len).sum();
    print::holds(&format!(
        "{total} rows of {} tenants in {}, as many as there were to load",
        data.tenants.len(),
        seconds(took)
    ));
    for remark in &data.remarks {
        print::text(&format!("• {remark}"));
    }
    let cast: Vec<String> =
        story.cast.iter().zip(["A", "B", "C"]).map(|(t, letter)| format!("{letter}: {} ({})", t.name, t.id)).collect();
    print::text(&format!("Below, {}.", cast.join("; ")));
    Ok(())
}

fn close(story: &mut Story<'_>, begun: Instant) -> Result<()> {
    print::chapter(7, "What this did not prove");
    let Story { root, pin, .. } = story;
    let file =
        root.show("SELECT name, size FROM pg_ls_dir('pg_custody') AS name, pg_stat_file('pg_custody/' || name);")?;
    expect::equal(
        "the private half of the signing key is a file in the data directory",
        &format!("{}.key", &pin[..16]),
        &file.cell(0, 0).to_owned(),
    )?;
    for item in [
        "A superuser can still stop recording, or do anything while it is off: that is in the log, but what was done is not.",
        "Whoever holds the signing key can write false entries that verify. It is level `generated`: CREATE EXTENSION made that file, and a \
         superuser, or root on the server, can read it. Heads that were kept elsewhere limit him to the future.",
        "A chain cut at its end, or rewritten with a key of the attacker's, is seen only by whoever kept heads and the fingerprint outside.",
        "The log of this database now has one finding that stays, capture_disabled: chapter 5 put it there.",
    ] {
        print::text(&format!("• {item}"));
    }
    let entries = story.root.number("SELECT count(*) FROM custody.entry")?;
    print::text(&format!("Told in {}; {entries} entries in the log.", seconds(begun.elapsed())));
    Ok(())
}

pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
