//! Chapter 3, second half: attempts to get a context that nobody gave.

use custody_harness::{Result, SUPERUSER};

use crate::isolation::APP;
use crate::session::Session;
use crate::story::Story;
use crate::{DATABASE, expect, print};

pub fn tell(story: &mut Story<'_>) -> Result<()> {
    print::section(&format!("{APP} tries to forge a context for tenant B"));
    print::text(
        "The context lives in a setting, custody.context, so that savepoints and parallel workers see it. Only pg_custody sets it.",
    );
    let b = story.cast[1].id.clone();
    let value = format!("{{\"tenant\": \"{b}\"}}");
    let set = format!("SET custody.context = '{value}';");
    within_a_session(story, &value, &set)?;
    on_the_way_in(story, &value, &set)?;
    with_help(story, &value, &set)
}

fn within_a_session(story: &mut Story<'_>, value: &str, set: &str) -> Result<()> {
    let mut app = story.session(APP)?;
    app.quiet("SELECT custody.tenant()")?;
    app.refused(set, "42501")?;
    app.refused(&format!("SELECT set_config('custody.context', '{value}', true);"), "42501")?;
    no_context(&mut app, "SET and set_config are refused")?;
    let token = story.token("dr.okafor", 0);
    app.begin(&token)?;
    app.refused("RESET custody.context;", "42501")?;
    app.run("RESET ALL;")?;
    app.refused(set, "42501")?;
    let tenant = app.one("SELECT custody.tenant()")?;
    expect::equal("inside A's transaction it cannot be set or reset either: still A", &story.cast[0].id, &tenant)?;
    app.end("ROLLBACK;")
}

fn on_the_way_in(story: &mut Story<'_>, value: &str, set: &str) -> Result<()> {
    let escaped = value.replace(' ', "\\ ");
    print::shell(&format!("PGOPTIONS='-c custody.context={escaped}' psql  # as {APP}"));
    let mut config = story.cluster.config(DATABASE, APP);
    config.options(&format!("-c custody.context={escaped}"));
    match Session::with(config, APP) {
        Ok(mut app) => no_context(&mut app, "a startup option gives no context")?,
        Err(e) => {
            print::output(&e.to_string());
            print::holds("a startup option gives no context: the connection is refused");
        }
    }
    print::text(
        "A new session's very first statement, before the library is loaded, when the name is still anybody's:",
    );
    let mut app = story.session(APP)?;
    app.run(set)?;
    let tenant = app.show("SELECT custody.tenant();")?;
    expect::equal("what was set before the library is loaded does not count", "", tenant.cell(0, 0))?;
    no_context(&mut app, "and the rows stay hidden")
}

/// A superuser can be careless; that does not open the door either.
fn with_help(story: &mut Story<'_>, value: &str, set: &str) -> Result<()> {
    print::section("A careless superuser lends a hand");
    let mut careless = story.session(SUPERUSER)?;
    careless.run(&format!("ALTER ROLE {APP} SET custody.context = '{value}';"))?;
    let mut app = story.session(APP)?;
    no_context(&mut app, &format!("a new session of {APP} is still without a context"))?;
    careless.run(&format!("ALTER ROLE {APP} RESET custody.context;"))?;

    careless.run(&format!("GRANT SET ON PARAMETER custody.context TO {APP};"))?;
    let mut app = story.session(APP)?;
    app.quiet("SELECT custody.tenant()")?;
    app.refused(set, "UC006")?;
    let mut app = story.session(APP)?;
    app.print("-- and before the library is loaded, in a session of its own:");
    app.run(set)?;
    no_context(&mut app, "the right to set the parameter is not enough, sooner or later")?;
    careless.run(&format!("REVOKE SET ON PARAMETER custody.context FROM {APP};"))?;

    careless.run(
        "CREATE FUNCTION clinic.become(value text) RETURNS text LANGUAGE sql SECURITY DEFINER
AS $$ SELECT set_config('custody.context', value, false) $$;",
    )?;
    let mut app = story.session(APP)?;
    app.quiet("SELECT custody.tenant()")?;
    app.refused(&format!("SELECT clinic.become('{value}');"), "UC006")?;
    no_context(&mut app, "a superuser's SECURITY DEFINER function cannot set it either")?;
    careless.run("DROP FUNCTION clinic.become(text);")?;
    Ok(())
}

fn no_context(app: &mut Session, claim: &str) -> Result<()> {
    let seen = app.quiet("SELECT coalesce(custody.tenant(), 'none'), (SELECT count(*) FROM clinic.patients)")?;
    expect::equal(
        &format!("{claim}: no tenant, no rows"),
        "none, 0 rows".to_owned(),
        format!("{}, {} rows", seen.cell(0, 0), seen.cell(0, 1)),
    )
}
