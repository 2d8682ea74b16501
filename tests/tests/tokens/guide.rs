//! docs/tokens.md: its SQL, block by block, in order, with a key set as an issuer publishes it.

use super::*;

#[test]
fn the_guide_runs() {
    let db = Db::clinic();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch("INSERT INTO clinic.patients VALUES ('a', 1, 'Ada'), ('a', 2, 'Al'), ('b', 1, 'Bo')");
    let text = include_str!("../../../docs/tokens.md");
    let published = json!({"keys": [jwk("RS256", "2026-11"), jwk("ES256", "2026-12")]}).to_string();
    let mut ran = 0;
    for block in text.split("```sql\n").skip(1).filter_map(|block| block.split("```").next()) {
        // psql's variables, and what the guide calls the things that each test has of its own.
        let block = block
            .replace(":'jwks'", &format!("'{published}'"))
            .replace("clinic_app", &app)
            .replace("DATABASE clinic", &format!("DATABASE {}", db.name));
        match block.strip_prefix(&format!("-- as {app}\n")) {
            Some(block) => {
                let claims = json!({"sub": "dr.okafor", "iss": "https://id.example/realms/clinic", "org": "a", "db_role": app, "jti": format!("j{ran}")});
                db.app().batch(&block.replace("$1", &format!("'{}'", token("RS256", "2026-11", claims))));
            }
            None => s.batch(&block),
        }
        ran += 1;
    }
    assert!(ran >= 6, "{ran}");
    s.batch(&format!("ALTER DATABASE {} RESET custody.token_leeway", db.name));
    s.assert_valid();
}
