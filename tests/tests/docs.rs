//! What is documented works: the SQL of the README and of the pages, block by block, in order.

use custody_tests::Db;

fn blocks(page: &str) -> Vec<&str> {
    page.split("```sql\n").skip(1).filter_map(|b| b.split("```").next()).collect()
}

#[test]
fn the_page_on_evidence_runs() {
    let db = Db::clinic();
    let mut superuser = db.superuser();
    blocks(include_str!("../../docs/evidence.md")).iter().for_each(|block| superuser.batch(block));
    superuser.assert_valid();
}

#[test]
fn the_pages_for_operators_run() {
    let db = Db::clinic();
    let mut superuser = db.superuser();
    for page in [
        include_str!("../../docs/monitoring.md"),
        include_str!("../../docs/runbook.md"),
        include_str!("../../docs/compliance.md"),
    ] {
        blocks(page).iter().for_each(|block| superuser.batch(block));
    }
    superuser.assert_valid();
}

#[test]
fn the_page_on_erasure_runs() {
    let db = Db::new();
    let mut superuser = db.superuser();
    blocks(include_str!("../../docs/erasure.md")).iter().for_each(|block| superuser.batch(block));
    superuser.assert_valid();
    assert_eq!(superuser.count("custody.entry WHERE new LIKE '%Ida%' OR old LIKE '%Ida%'"), 0);
}

#[test]
fn the_page_on_keys_runs() {
    let db = Db::clinic();
    let mut superuser = db.superuser();
    blocks(include_str!("../../docs/keys.md")).iter().for_each(|block| superuser.batch(block));
    assert_eq!(superuser.count("custody.signing_key"), 3);
    assert_eq!(superuser.count("custody.signing_key WHERE ended = 'revoke'"), 1);
}

#[test]
fn the_page_on_lives_runs() {
    let db = Db::clinic();
    let mut superuser = db.superuser();
    let text = include_str!("../../docs/lives.md").replace("\n   ", "\n");
    let blocks = blocks(&text);
    assert_eq!(blocks.len(), 6);
    blocks.iter().for_each(|block| superuser.batch(block));
    superuser.assert_valid();
    assert_eq!(superuser.count("custody.incarnation"), 2);
}

#[test]
fn the_page_on_reconciling_runs() {
    let db = Db::new();
    let mut superuser = db.superuser();
    blocks(include_str!("../../docs/reconcile.md")).iter().for_each(|block| superuser.batch(block));
    let found = |s: &mut custody_tests::Session, table: &str| -> Vec<String> {
        let sql = "SELECT concat_ws(' ', verdict, row_key) FROM custody.reconcile($1::text::regclass)";
        s.rows(sql, &[&table]).iter().map(|r| r.get(0)).collect()
    };
    assert_eq!(found(&mut superuser, "stock"), ["differs", "changed {\"id\":3}"]);
    assert_eq!(found(&mut superuser, "large"), ["clean"]);
}

#[test]
fn the_readme_runs() {
    let db = Db::bare();
    let mut superuser = db.superuser();
    let text = include_str!("../../README.md");
    let blocks = blocks(text);
    assert!(blocks.len() >= 5);
    for block in blocks {
        let block = block.replace("DATABASE readme", &format!("DATABASE {}", db.name));
        match block.strip_prefix("-- as clinic_app\n") {
            Some(block) => db.session("clinic_app").batch(block),
            None => superuser.batch(&block),
        }
    }
    superuser.assert_valid();
    assert_eq!(superuser.count("custody.log WHERE table_name = 'patients' AND tenant <> ''"), 2);
}

#[test]
fn the_page_on_probing_runs() {
    let db = Db::new();
    let mut superuser = db.superuser();
    let text = include_str!("../../docs/probe.md");
    for block in text.split("```sql\n").skip(1).filter_map(|b| b.split("```").next()) {
        superuser.batch(block);
    }
    let summary: String = superuser.one("SELECT outcome FROM custody.probe('ward.beds') WHERE attempt = 'summary'");
    assert_eq!(summary, "passed");
    superuser.assert_valid();
}
