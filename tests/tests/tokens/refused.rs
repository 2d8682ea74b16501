//! Tokens that set nothing: one SQLSTATE, the reason in DETAIL, one line in the server's log, and nothing else happens.

use super::*;

#[test]
fn every_refusal_says_why_and_changes_nothing() {
    let db = clinic();
    let mut s = db.superuser();
    let mut app = db.app();
    let entries = s.count("custody.entry");
    let head = |alg: &str, more: &str| format!(r#"{{"alg":"{alg}","kid":"EdDSA"{more}}}"#);
    let claims = json!({"tenant": "a", "aud": "clinic", "exp": now() + 60, "sub": "SECRET-SUBJECT"}).to_string();
    let headed = |header: &str| sign("EdDSA", header, &claims);
    let payload = |payload: &str| sign("EdDSA", &head("EdDSA", ""), payload);
    let whole = payload(&claims);
    let parts: Vec<&str> = whole.split('.').collect();
    let confused = {
        let signed = format!("{}.{}", b64(head("HS256", "")), b64(&claims));
        let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &public_key("EdDSA"));
        format!("{signed}.{}", b64(aws_lc_rs::hmac::sign(&secret, signed.as_bytes())))
    };
    let deep = format!(r#"{{"tenant":"a","aud":"clinic","exp":1e10,"x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let cases = [
        ("alg none", headed(&head("none", "")), "algorithm is not the key's"),
        ("alg none, unsigned", format!("{}.{}.", b64(head("none", "")), parts[1]), "signature is not base64url"),
        ("another alg", headed(&head("RS256", "")), "algorithm is not the key's"),
        ("HMAC with the public key", confused, "algorithm is not the key's"),
        (
            "ES256's key id with RS256",
            sign("RS256", r#"{"alg":"RS256","kid":"ES256"}"#, &claims),
            "algorithm is not the key's",
        ),
        ("another key's signature", sign("EdDSA", r#"{"alg":"ES256","kid":"ES256"}"#, &claims), "signature is wrong"),
        ("crit", headed(&head("EdDSA", r#","crit":["x"]"#)), "extension that is not understood"),
        ("b64", headed(&head("EdDSA", r#","b64":false"#)), "extension that is not understood"),
        ("typ", headed(&head("EdDSA", r#","typ":"JOSE""#)), "neither JWT nor at+jwt"),
        ("no kid", headed(r#"{"alg":"EdDSA"}"#), "names no key"),
        ("unknown kid", headed(r#"{"alg":"EdDSA","kid":"other"}"#), "no key with its kid"),
        ("a kid of SQL", headed(r#"{"alg":"EdDSA","kid":"' OR true --"}"#), "no key with its kid"),
        (
            "a header given twice",
            headed(r#"{"alg":"none","alg":"EdDSA","kid":"EdDSA"}"#),
            "header is not a JSON object",
        ),
        (
            "a claim given twice",
            payload(r#"{"tenant":"a","tenant":"b","aud":"clinic","exp":1e10}"#),
            "claims set is not a JSON object",
        ),
        (
            "a claim given twice within",
            payload(r#"{"tenant":"a","aud":"clinic","exp":1e10,"x":{"y":1,"y":2}}"#),
            "claims set is not a JSON object",
        ),
        ("nested deeply", payload(&deep), "claims set is not a JSON object"),
        ("exp 1e400", payload(r#"{"tenant":"a","aud":"clinic","exp":1e400}"#), "claims set is not a JSON object"),
        ("exp NaN", payload(r#"{"tenant":"a","aud":"clinic","exp":NaN}"#), "claims set is not a JSON object"),
        ("exp out of range", payload(r#"{"tenant":"a","aud":"clinic","exp":1e18}"#), "\"exp\" has the wrong type"),
        ("exp as text", token("EdDSA", "EdDSA", json!({"exp": "9999999999"})), "\"exp\" has the wrong type"),
        ("no exp", token("EdDSA", "EdDSA", json!({"exp": null})), "no expiry"),
        ("expired", token("EdDSA", "EdDSA", json!({"exp": now() - 1})), "it has expired"),
        ("nbf", token("EdDSA", "EdDSA", json!({"nbf": now() + 30})), "not valid yet"),
        ("iat in the future", token("EdDSA", "EdDSA", json!({"iat": now() + 30})), "not valid yet"),
        ("aud", token("EdDSA", "EdDSA", json!({"aud": ["x", "y"]})), "another audience"),
        ("no aud", token("EdDSA", "EdDSA", json!({"aud": null})), "another audience"),
        ("no tenant", token("EdDSA", "EdDSA", json!({"tenant": null})), "names no tenant"),
        ("truncated", whole[..whole.len() - 7].into(), "signature is"),
        ("cut in two", format!("{}.{}", parts[0], parts[1]), "not three parts"),
        (
            "one changed byte",
            format!("{}.{}.{}", parts[0], parts[1], parts[2].replacen(|c| c != 'A', "A", 1)),
            "signature is wrong",
        ),
        ("oversized", format!("{}.{}.{}", parts[0], "A".repeat(9000), parts[2]), "longer than"),
        ("oversized by far", "a".repeat(50_000_000), "longer than"),
        ("padding", format!("{whole}=="), "signature is not base64url"),
        ("the standard alphabet", format!("{}.{}+/.{}", parts[0], parts[1], parts[2]), "claims set is not base64url"),
        ("bits left over", format!("{}B", &whole[..whole.len() - 1]), "signature is not base64url"),
        ("white space", format!("{}. {}.{}", parts[0], parts[1], parts[2]), "claims set is not base64url"),
        ("a line feed at the end", format!("{whole}\n"), "signature is not base64url"),
        (
            "JSON serialisation",
            json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
            "not three parts",
        ),
        ("five parts", format!("{}.{}.{}.a.b", parts[0], parts[1], parts[2]), "it is encrypted"),
        ("a detached payload", format!("{}..{}", parts[0], parts[2]), "detached payload"),
        (
            "not UTF-8",
            {
                let signed = format!("{}.{}", parts[0], b64(b"{\"tenant\":\"\xff\",\"aud\":\"clinic\",\"exp\":1e10}"));
                let signature = ed25519(7).sign(signed.as_bytes()).to_bytes();
                format!("{signed}.{}", b64(signature))
            },
            "claims set is not a JSON object",
        ),
        ("nothing", String::new(), "not three parts"),
        ("dots", "..".into(), "header is not base64url"),
    ];
    let log = db.cluster.socket().join("log");
    let read = || std::fs::read_to_string(&log).unwrap();
    for (what, token, why) in &cases {
        let before = read().len();
        app.batch("BEGIN; SAVEPOINT before");
        let error = present(&mut app, token).expect_err(what);
        assert_eq!((error.code().code(), error.message()), ("UC004", "the token is refused"), "{what}");
        assert!(error.detail().is_some_and(|detail| detail.contains(why)), "{what}: {:?}", error.detail());
        assert!(error.hint().is_some(), "{what}");
        app.batch("ROLLBACK TO before");
        assert_eq!(app.one::<Option<String>>("SELECT custody.tenant()"), None, "{what}");
        assert_eq!(app.count("clinic.patients"), 0, "{what}");
        app.batch("COMMIT");
        // As a literal too, which the server would log with the error.
        if !token.contains('\n') && token.len() < 20_000 {
            assert_eq!(app.fails(&format!("SELECT custody.authenticate('{}')", token.replace('\'', "''"))), "UC004");
        }
        let said = read()[before..].to_owned();
        let mine =
            |line: &&str| line.contains(&format!("@{} ", db.name)) && line.contains("a token was refused for role");
        let expected = if token.contains('\n') || token.len() >= 20_000 { 1 } else { 2 };
        assert_eq!(said.lines().filter(mine).count(), expected, "{what}");
        let mut secrets = vec![token.as_str(), "SECRET-SUBJECT"];
        secrets.extend(token.split('.').filter(|part| part.len() > 10));
        assert!(secrets.iter().all(|secret| secret.len() < 10 || !said.contains(secret)), "{what} is in the log");
    }
    assert_eq!(s.count("custody.entry"), entries, "nothing was recorded");
    // The session is as good as before.
    begin(&mut app, &whole);
    assert_eq!(app.count("clinic.patients"), 2);
    app.batch("COMMIT");
}

#[test]
fn each_algorithm_sets_the_context() {
    let db = clinic();
    let mut app = db.app();
    for algorithm in ALGORITHMS {
        begin(&mut app, &token(algorithm, algorithm, json!({})));
        assert_eq!(app.one::<String>("SELECT custody.tenant() || ' ' || custody.subject()"), "a dr.ada");
        assert_eq!(app.count("clinic.patients"), 2, "{algorithm}");
        app.batch("INSERT INTO clinic.patients (id) VALUES (3); ROLLBACK");
    }
}

#[test]
fn the_rules_of_a_key() {
    let db = Db::clinic();
    let (name, mut s, mut app) = (db.app_name(), db.superuser(), db.app());
    add_key(&mut s, "ES256", "k", ", issuer => 'https://id.example', role_claim => 'db_role', max_lifetime => 120");
    let good = json!({"iss": "https://id.example", "db_role": name});
    assert_eq!(refusal(&mut app, &token("ES256", "k", good.clone())), None);
    assert_eq!(
        refusal(&mut app, &token("ES256", "k", json!({"iss": "https://id.example", "db_role": ["x", name]}))),
        None
    );
    for (claim, value, why) in [
        ("iss", json!("https://id.example/"), "another issuer"),
        ("iss", json!(null), "another issuer"),
        ("db_role", json!("postgres"), "not for this database role"),
        ("db_role", json!(null), "not for this database role"),
        ("db_role", json!(["custody_app"]), "not for this database role"),
        ("exp", json!(now() + 200), "valid for longer"),
        ("iat", json!(now() - 100), "valid for longer"),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        app.batch("BEGIN");
        let error = present(&mut app, &token("ES256", "k", claims)).unwrap_err();
        assert!(error.code().code() == "UC004" && error.detail().unwrap().contains(why), "{claim}: {error}");
        app.batch("ROLLBACK");
    }
    // SET ROLE does not make a session another role's.
    s.batch(&format!("CREATE ROLE {name}_2 IN ROLE custody_app; GRANT {name}_2 TO {name}"));
    app.batch(&format!("SET ROLE {name}_2"));
    assert_eq!(
        refusal(&mut app, &token("ES256", "k", json!({"iss": "https://id.example", "db_role": format!("{name}_2")}))),
        Some("UC004".into())
    );
    for (arguments, why) in [
        ("'\\x00', 'x'", "public_key"),
        ("$1, 'x', kid => repeat('k', 257)", "kid"),
        ("$1, ''", "audience"),
        ("$1, 'x', tenant_claim => ''", "tenant_claim"),
        ("$1, 'x', issuer => ''", "issuer"),
        ("$1, 'x', role_claim => ''", "role_claim"),
        ("$1, 'x', max_lifetime => 0", "max_lifetime"),
        ("$1, 'x', algorithm => 'HS256'", "algorithm"),
        ("$1, 'x', algorithm => 'RS256'", "public_key"),
        ("$1, 'x', algorithm => 'ES256'", "public_key"),
    ] {
        let arguments = match arguments.contains("kid") {
            true => arguments.replacen("$1, 'x'", "public_key => $1, audience => 'x'", 1),
            false => format!("'bad', {arguments}"),
        };
        let sql = format!("SELECT custody.add_token_key({arguments})").replace(
            "$1",
            &format!("decode('{}', 'hex')", "d19c2c9596c1d9fa524714b3cc2c4eb358c8cb87556035d7bdc63922bfa6277c"),
        );
        let error = s.0.batch_execute(&sql).expect_err(&sql);
        let error = error.as_db_error().unwrap();
        assert!(error.code().code() == "UC013" && error.message().contains(why), "{sql}: {error}");
    }
}

/// How far clocks may differ is not for the one who presents the token.
#[test]
fn leeway_is_the_superusers() {
    let db = clinic();
    let (name, mut s, mut app) = (db.app_name(), db.superuser(), db.app());
    let expired = || token("EdDSA", "EdDSA", json!({"exp": now() - 10}));
    let early = || token("EdDSA", "EdDSA", json!({"nbf": now() + 10, "iat": now() + 10}));
    assert_eq!(refusal(&mut app, &expired()), Some("UC004".into()));
    for sql in [
        "SET custody.token_leeway = 60",
        "SET LOCAL custody.token_leeway = 60",
        "SELECT set_config('custody.token_leeway', '60', false)",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET custody.token_leeway = 60 AS 'SELECT 1'",
    ] {
        assert_eq!(app.fails(sql), "42501", "{sql}");
    }
    let alter = format!("ALTER ROLE {name} SET custody.token_leeway = 60");
    assert_eq!(app.fails(&alter), "42501");
    // Asked for before the library is loaded, and it is loaded by the first call.
    let mut config = db.cluster.config(&db.name, &name);
    let mut started = Session(config.options("-c custody.token_leeway=60").connect(postgres::NoTls).unwrap());
    assert_eq!(refusal(&mut started, &expired()), Some("UC004".into()));
    assert_eq!(started.one::<String>("SHOW custody.token_leeway"), "0");
    let mut fresh = db.app();
    assert_eq!(fresh.fails(&alter), "42501", "nor where the library is not loaded");

    s.batch(&format!("ALTER DATABASE {} SET custody.token_leeway = 60", db.name));
    let mut app = db.app();
    assert_eq!(refusal(&mut app, &expired()), None);
    assert_eq!(refusal(&mut app, &early()), None);
    assert_eq!(refusal(&mut app, &token("EdDSA", "EdDSA", json!({"exp": now() - 61}))), Some("UC004".into()));
    // A revocation allows for the same.
    s.batch("SELECT custody.revoke_tokens('dr.ada')");
    assert_eq!(refusal(&mut app, &early()), Some("UC004".into()));
    for refused in ["61", "-1", "'1 h'"] {
        assert_eq!(s.fails(&format!("SET custody.token_leeway = {refused}")), "22023");
    }
    s.batch(&format!("ALTER DATABASE {} RESET custody.token_leeway", db.name));
}

/// What happens at the token's tenant is the bound role's business too.
#[test]
fn plain_roles_configure_nothing() {
    let db = clinic();
    let mut app = db.app();
    let mut auditor = {
        let name = format!("{}_auditor", db.name);
        db.superuser().batch(&format!("CREATE ROLE {name} LOGIN IN ROLE custody_auditor"));
        db.session(&name)
    };
    for call in [
        "add_token_key('x', '\\x00', 'x')",
        "load_token_keys('{\"keys\":[]}', 'x')",
        "remove_token_key('EdDSA')",
        "revoke_tokens('dr.ada')",
        "forget_seen_tokens()",
    ] {
        for session in [&mut app, &mut auditor] {
            assert_eq!(session.fails(&format!("SELECT custody.{call}")), "42501", "{call}");
        }
    }
    for table in ["token_key", "token_revocation", "token_seen"] {
        assert_eq!(app.fails(&format!("SELECT * FROM custody.{table}")), "42501");
        assert_eq!(auditor.fails(&format!("DELETE FROM custody.{table}")), "42501");
        auditor.count(&format!("custody.{table}"));
    }
    let mut admin = {
        let name = format!("{}_admin", db.name);
        db.superuser().batch(&format!("CREATE ROLE {name} LOGIN IN ROLE custody_admin"));
        db.session(&name)
    };
    admin.batch("SELECT custody.remove_token_key('EdDSA'), custody.revoke_tokens('x'), custody.forget_seen_tokens()");
    assert_eq!(admin.fails("UPDATE custody.token_key SET audience = 'x'"), "42501");
}
