//! Key sets: what becomes of each key, and what a rotation does to tokens.

use super::*;

fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// Loads a set for the audience clinic, and gives `kid action`, in order.
fn load(s: &mut Session, keys: &[Value], more: &str) -> Vec<String> {
    let sql = format!("SELECT coalesce(kid, '?') || ' ' || action FROM custody.load_token_keys($1, 'clinic'{more})");
    s.rows(&sql, &[&set(keys)]).iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_set_is_loaded_and_each_key_says_what_became_of_it() {
    let db = Db::clinic();
    let (mut s, mut app) = (db.superuser(), db.app());
    let mut weak = jwk("RS256", "weak");
    weak["n"] = json!(b64([0xff; 128]));
    let mut encryption = jwk("RS256", "enc");
    encryption["use"] = json!("enc");
    let mut nameless = jwk("EdDSA", "x");
    nameless.as_object_mut().unwrap().remove("kid");
    add_key(&mut s, "ES256", "taken", "");
    let keys = [
        jwk("EdDSA", "ed"),
        jwk("ES256", "ec"),
        jwk("RS256", "rsa"),
        weak,
        encryption,
        nameless,
        jwk("EdDSA", "taken"),
    ];
    let rows = s.rows(
        "SELECT kid, algorithm, action, reason, not_after IS NULL FROM custody.load_token_keys($1, 'clinic')",
        &[&set(&keys)],
    );
    let told: Vec<_> = rows
        .iter()
        .map(|r| {
            (
                r.get::<_, Option<&str>>(0),
                r.get::<_, Option<&str>>(1),
                r.get::<_, &str>(2),
                r.get::<_, Option<&str>>(3).unwrap_or_default().to_owned(),
            )
        })
        .collect();
    for (told, (kid, algorithm, action, reason)) in told.iter().zip([
        (Some("ed"), Some("EdDSA"), "added", ""),
        (Some("ec"), Some("ES256"), "added", ""),
        (Some("rsa"), Some("RS256"), "added", ""),
        (Some("weak"), None, "ignored", "RSA key of 1024 bits"),
        (Some("enc"), None, "ignored", "use is not sig"),
        (None, None, "ignored", "no kid"),
        (Some("taken"), Some("EdDSA"), "ignored", "registered by custody.add_token_key"),
    ]) {
        assert_eq!((told.0, told.1, told.2), (kid, algorithm, action));
        assert!(told.3.contains(reason), "{told:?}");
    }
    assert_eq!(told.len(), 7);
    for (algorithm, kid) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa")] {
        assert_eq!(refusal(&mut app, &token(algorithm, kid, json!({}))), None, "{kid}");
    }
    // Again: nothing is written, so nothing is recorded either.
    let entries = s.count("custody.entry");
    assert_eq!(load(&mut s, &keys[..3], ""), ["ed kept", "ec kept", "rsa kept"]);
    assert_eq!(s.count("custody.entry"), entries);
    // Other rules are a change, for all.
    assert_eq!(
        load(&mut s, &keys[..3], ", issuer => 'https://id.example'"),
        ["ed changed", "ec changed", "rsa changed"]
    );
    assert_eq!(refusal(&mut app, &token("EdDSA", "ed", json!({}))), Some("UC004".into()));
    assert_eq!(refusal(&mut app, &token("EdDSA", "ed", json!({"iss": "https://id.example"}))), None);
    // Another set does not touch this one, and may not have its names.
    assert_eq!(
        load(&mut s, &[jwk("EdDSA", "ed"), jwk("EdDSA", "ed2")], ", key_set => 'other'"),
        ["ed ignored", "ed2 added"]
    );
    assert_eq!(s.count("custody.token_key WHERE key_set = 'default' AND not_after IS NULL"), 3);
    s.assert_valid();
}

#[test]
fn a_rotation_overlaps() {
    let db = Db::clinic();
    let (mut s, mut app) = (db.superuser(), db.app());
    let good = |algorithm: &str, kid: &str| token(algorithm, kid, json!({}));
    assert_eq!(load(&mut s, &[jwk("ES256", "old")], ""), ["old added"]);
    assert_eq!(load(&mut s, &[jwk("ES256", "old"), jwk("RS256", "new")], ""), ["old kept", "new added"]);
    assert_eq!(load(&mut s, &[jwk("RS256", "new")], ", overlap => '3 s'"), ["new kept", "old retired"]);
    // A longer overlap later does not lengthen it.
    assert_eq!(load(&mut s, &[jwk("RS256", "new")], ", overlap => '1 day'"), ["new kept", "old retired"]);
    assert_eq!(refusal(&mut app, &good("ES256", "old")), None, "within the overlap");
    app.batch("SELECT pg_sleep(3)");
    assert_eq!(refusal(&mut app, &good("ES256", "old")), Some("UC004".into()), "after it");
    assert_eq!(refusal(&mut app, &good("RS256", "new")), None);
    assert_eq!(load(&mut s, &[jwk("RS256", "new")], ""), ["new kept", "old removed"]);
    assert_eq!(s.count("custody.token_key"), 1);
    // One that comes back is in force again; a name that comes back with another key ends the tokens of the first.
    assert_eq!(load(&mut s, &[jwk("EdDSA", "x")], ""), ["x added", "new retired"]);
    assert_eq!(load(&mut s, &[jwk("EdDSA", "x"), jwk("RS256", "new")], ""), ["x kept", "new changed"]);
    assert_eq!(s.count("custody.token_key WHERE not_after IS NOT NULL"), 0);
    begin(&mut app, &good("EdDSA", "x"));
    assert_eq!(load(&mut s, &[jwk("ES256", "x"), jwk("RS256", "new")], ""), ["x replaced", "new kept"]);
    assert_eq!(app.fails("SELECT count(*) FROM clinic.patients"), "UC071");
    app.batch("ROLLBACK");
    assert_eq!(refusal(&mut app, &good("EdDSA", "x")), Some("UC004".into()));
    assert_eq!(refusal(&mut app, &good("ES256", "x")), None);
    // At once, also in the transaction that added it.
    s.batch("BEGIN");
    assert_eq!(load(&mut s, &[jwk("EdDSA", "y")], ", overlap => '0'"), ["y added", "new retired", "x retired"]);
    assert_eq!(load(&mut s, &[jwk("EdDSA", "z")], ", overlap => '0'")[0], "z added");
    s.batch("COMMIT");
    for (algorithm, kid) in [("ES256", "x"), ("RS256", "new"), ("EdDSA", "y")] {
        assert_eq!(refusal(&mut app, &good(algorithm, kid)), Some("UC004".into()), "{kid}");
    }
    assert_eq!(refusal(&mut app, &good("EdDSA", "z")), None);
    // The history of the keys is in the log.
    assert!(s.count("custody.log WHERE table_name = 'token_key'") >= 10);
    s.assert_valid();
}

#[test]
fn sets_that_are_refused_change_nothing() {
    let db = Db::clinic();
    let mut s = db.superuser();
    load(&mut s, &[jwk("EdDSA", "k")], "");
    let entries = s.count("custody.entry");
    let mut private = jwk("ES256", "private");
    private["d"] = json!(b64([1; 32]));
    let mut unusable = jwk("RS256", "x");
    unusable["alg"] = json!("RS512");
    for (text, why) in [
        (set(&[jwk("EdDSA", "new"), private]), "key 2 has the member \"d\""),
        (set(&[json!({"kty": "oct", "kid": "s", "k": "AAAA"})]), "key 1 has the member \"k\""),
        (set(&[jwk("EdDSA", "a"), jwk("ES256", "a")]), "key 2 has the kid of an earlier one"),
        (r#"{"keys":[{"kty":"OKP","kid":"a","kid":"b"}]}"#.into(), "each name given once"),
        (set(&[]), "it has no keys"),
        (set(&[unusable]), "no key that could be used; of the first: its alg is not RS256"),
        ("<html>502 Bad Gateway</html>".into(), "not JSON"),
        (String::new(), "not JSON"),
        ("{}".into(), "an array \"keys\""),
        (jwk("EdDSA", "a").to_string(), "an array \"keys\""),
        (" ".repeat(2 << 20), "longer than"),
    ] {
        let error = s.0.query("SELECT * FROM custody.load_token_keys($1, 'clinic')", &[&text]).expect_err(why);
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "UC070", "{error}");
        assert!(error.detail().is_some_and(|detail| detail.contains(why)), "{:?}", error.detail());
    }
    s.rows("SELECT * FROM custody.load_token_keys($1, 'clinic', key_set => 'other')", &[&set(&[jwk("ES256", "o")])]);
    let error = s
        .0
        .query("SELECT * FROM custody.load_token_keys($1, 'clinic', key_set => 'other')", &[&set(&[jwk("EdDSA", "k")])])
        .unwrap_err();
    assert_eq!(custody_tests::state(&error), "UC070", "another set's names alone");
    s.batch("SELECT custody.remove_token_key('o')");
    let entries = entries + 2;
    for (more, why) in [
        (", overlap => '-1 s'", "overlap"),
        (", key_set => ''", "key_set"),
        (", issuer => ''", "issuer"),
        (", max_lifetime => -1", "max_lifetime"),
        (", overlap => NULL", "overlap"),
        (", single_use => NULL", "single_use"),
    ] {
        let error = s
            .0
            .query(&format!("SELECT * FROM custody.load_token_keys($1, 'clinic'{more})"), &[&set(&[jwk("EdDSA", "k")])])
            .expect_err(more);
        let error = error.as_db_error().unwrap();
        assert!(error.code().code() == "UC013" && error.message().contains(why), "{error}");
    }
    assert_eq!(s.count("custody.entry"), entries);
    assert_eq!(s.count("custody.token_key WHERE not_after IS NULL"), 1);
}

/// Two loads at once: one after the other.
#[test]
fn loads_at_once_do_not_retire_each_others_keys() {
    let db = Db::clinic();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut s = db.superuser();
                for _ in 0..10 {
                    let told = load(&mut s, &[jwk("EdDSA", "a"), jwk("ES256", "b")], "");
                    assert!(told.iter().all(|told| told.ends_with(" added") || told.ends_with(" kept")), "{told:?}");
                }
            });
        }
    });
    assert_eq!(db.superuser().count("custody.token_key WHERE not_after IS NULL"), 2);
}

/// Keys that were registered before there was a choice.
#[test]
fn keys_of_0_1_0_stay_in_force() {
    let db = Db::bare();
    let app = db.app_name();
    let mut s = db.superuser();
    s.batch(&format!(
        "CREATE EXTENSION pg_custody VERSION '0.1.0'; CREATE ROLE {app} LOGIN IN ROLE custody_app;
         CREATE TABLE t (tenant_id text, id int, PRIMARY KEY (tenant_id, id)); SELECT custody.protect('t'); GRANT SELECT ON t TO {app};
         INSERT INTO t VALUES ('a', 1), ('b', 1)"
    ));
    s.rows("SELECT custody.add_token_key('old', $1, 'clinic')", &[&public_key("EdDSA")]);
    let good = token("EdDSA", "old", json!({}));
    // With the new library and the old objects; and with the new ones.
    for upgrade in ["", "ALTER EXTENSION pg_custody UPDATE"] {
        s.batch(upgrade);
        for session in [&mut db.app(), &mut db.app()] {
            begin(session, &good);
            assert_eq!(session.count("t"), 1);
            session.batch("COMMIT");
            assert_eq!(refusal(session, &token("ES256", "old", json!({}))), Some("UC004".into()));
        }
    }
    assert_eq!(s.count("custody.token_key WHERE NOT single_use AND key_set IS NULL AND issuer IS NULL"), 1);
    load(&mut s, &[jwk("RS256", "new")], "");
    assert_eq!(refusal(&mut db.app(), &token("RS256", "new", json!({}))), None);
    s.assert_valid();
}
