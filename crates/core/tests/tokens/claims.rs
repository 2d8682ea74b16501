//! What a claims set must say.

use super::*;
use custody_core::token::revoked;

fn check(payload: impl AsRef<[u8]>, rules: impl FnOnce(&mut Rules), at: Moment<'_>) -> Result<Claims, TokenError> {
    let mut key = key(Algorithm::EdDsa);
    rules(&mut key.rules);
    let token = sign(Algorithm::EdDsa, header(Algorithm::EdDsa), payload);
    Token::read(&token)?.verify(&key, &at)
}

fn with(name: &str, value: Value) -> Value {
    let mut all = good();
    all[name] = value;
    all
}

#[test]
fn claims_that_hold() {
    let claims = check(
        json!({"tenant": "a", "aud": ["x", "clinic"], "exp": NOW + 1, "sub": "dr", "iat": NOW}).to_string(),
        |_| {},
        AT,
    )
    .unwrap();
    assert_eq!(
        (claims.tenant.as_str(), claims.subject.as_deref(), claims.expires, claims.issued),
        ("a", Some("dr"), NOW + 1, Some(NOW))
    );
    assert_eq!(check(with("tenant", json!(42)).to_string(), |_| {}, AT).unwrap().tenant, "42");
    assert_eq!(check(with("tenant", json!(i64::MIN)).to_string(), |_| {}, AT).unwrap().tenant, i64::MIN.to_string());
    // As RFC 7519 has it, a date may have a fraction; the strict side counts.
    assert_eq!(check(with("exp", json!(NOW as f64 + 1.9)).to_string(), |_| {}, AT).unwrap().expires, NOW + 1);
    assert_eq!(check(with("exp", json!(NOW as f64 + 0.9)).to_string(), |_| {}, AT), Err(TokenError::Expired));
    assert_eq!(check(with("nbf", json!(NOW as f64 + 0.1)).to_string(), |_| {}, AT), Err(TokenError::NotYet));
    assert!(check(with("nbf", json!(NOW)).to_string(), |_| {}, AT).is_ok());
}

#[test]
fn claims_that_are_refused() {
    let wrong = |name: &str| TokenError::WrongType(name.into());
    for (name, value, why) in [
        ("exp", json!(NOW), TokenError::Expired),
        ("exp", json!(0), TokenError::Expired),
        ("exp", json!("1900000000"), wrong("exp")),
        ("exp", json!(null), wrong("exp")),
        ("exp", json!(true), wrong("exp")),
        ("exp", json!([NOW + 60]), wrong("exp")),
        ("exp", json!(1e300), wrong("exp")),
        ("exp", json!(u64::MAX), wrong("exp")),
        ("exp", json!(253_402_300_800i64), wrong("exp")),
        ("exp", json!(-1), wrong("exp")),
        ("nbf", json!(NOW + 1), TokenError::NotYet),
        ("nbf", json!("0"), wrong("nbf")),
        ("nbf", json!(null), wrong("nbf")),
        ("iat", json!(NOW + 1), TokenError::NotYet),
        ("iat", json!({}), wrong("iat")),
        ("aud", json!("other"), TokenError::WrongAudience),
        ("aud", json!("clinic "), TokenError::WrongAudience),
        ("aud", json!("Clinic"), TokenError::WrongAudience),
        ("aud", json!(["clinics", "clini"]), TokenError::WrongAudience),
        ("aud", json!([["clinic"]]), TokenError::WrongAudience),
        ("aud", json!({"clinic": 1}), TokenError::WrongAudience),
        ("aud", json!([]), TokenError::WrongAudience),
        ("aud", json!(null), TokenError::WrongAudience),
        ("sub", json!(1), wrong("sub")),
        ("sub", json!(null), wrong("sub")),
        ("tenant", json!(""), wrong("tenant")),
        ("tenant", json!(1.5), wrong("tenant")),
        ("tenant", json!(u64::MAX), wrong("tenant")),
        ("tenant", json!(["a"]), wrong("tenant")),
        ("tenant", json!(null), TokenError::NoTenant("tenant".into())),
        ("tenant", json!("a\0b"), TokenError::Nul),
        ("x", json!([{"y": "\0"}]), TokenError::Nul),
        ("x\0", json!(1), TokenError::Nul),
    ] {
        assert_eq!(check(with(name, value.clone()).to_string(), |_| {}, AT), Err(why), "{name}: {value}");
    }
    let payload = |text: &str| check(text, |_| {}, AT).unwrap_err();
    assert_eq!(payload(r#"{"tenant":"a","aud":"clinic"}"#), TokenError::NoExpiry);
    for text in [
        r#"{"tenant":"a","aud":"clinic","exp":1e400}"#,
        r#"{"tenant":"a","aud":"clinic","exp":NaN}"#,
        r#"{"tenant":"a","aud":"clinic","exp":Infinity}"#,
        r#"{"tenant":"a","aud":"clinic","exp":0x7fffffff}"#,
        r#"{"tenant":"a","aud":"clinic","exp":01900000000}"#,
        r#"{"tenant":"a","aud":"clinic","exp":1900000000,}"#,
        r#"{"tenant":"a","tenant":"b","aud":"clinic","exp":1900000000}"#,
        r#"{"tenant":"a","ten\u0061nt":"b","aud":"clinic","exp":1900000000}"#,
        r#"{"tenant":"a","aud":"clinic","exp":1900000000,"x":[{"y":1,"y":1}]}"#,
        r#"{"tenant":"a","aud":"clinic","exp":1900000000}{}"#,
        r#"{"tenant":"\ud800","aud":"clinic","exp":1900000000}"#,
        "[]",
        "null",
        "\"a\"",
        "1",
        "Payload",
    ] {
        assert_eq!(payload(text), TokenError::NotJson("claims set"), "{text}");
    }
    let deep =
        format!(r#"{{"tenant":"a","aud":"clinic","exp":1900000000,"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(payload(&deep), TokenError::NotJson("claims set"));
    assert_eq!(
        check(b"{\"tenant\":\"\xff\",\"aud\":\"clinic\",\"exp\":1900000000}", |_| {}, AT),
        Err(TokenError::NotJson("claims set"))
    );
}

#[test]
fn leeway_moves_all_three_dates() {
    let later = |leeway| Moment { leeway, ..AT };
    for (name, offset) in [("exp", -9), ("nbf", 10), ("iat", 10)] {
        let text = with(name, json!(NOW + offset)).to_string();
        assert!(check(&text, |_| {}, later(10)).is_ok(), "{name}");
        assert!(check(&text, |_| {}, later(9)).is_err(), "{name}");
        assert!(check(&text, |_| {}, later(0)).is_err(), "{name}");
    }
}

#[test]
fn the_rules_of_a_key() {
    let issuer = |rules: &mut Rules| rules.issuer = Some("https://id.example".into());
    assert!(check(with("iss", json!("https://id.example")).to_string(), issuer, AT).is_ok());
    for other in [json!("https://id.example/"), json!(["https://id.example"]), json!(null)] {
        assert_eq!(check(with("iss", other).to_string(), issuer, AT), Err(TokenError::WrongIssuer));
    }
    assert_eq!(check(good().to_string(), issuer, AT), Err(TokenError::WrongIssuer));

    let role = |rules: &mut Rules| rules.role_claim = Some("role".into());
    for ok in [json!("app"), json!(["x", "app"])] {
        assert!(check(with("role", ok).to_string(), role, AT).is_ok());
    }
    for other in [json!("APP"), json!("app "), json!(["other"]), json!(null), json!(["app2"])] {
        assert_eq!(check(with("role", other).to_string(), role, AT), Err(TokenError::WrongRole("role".into())));
    }
    assert_eq!(check(good().to_string(), role, AT), Err(TokenError::WrongRole("role".into())));

    // From its issue, or from now, to its end.
    let most = |seconds| move |rules: &mut Rules| rules.max_lifetime = Some(seconds);
    assert!(check(good().to_string(), most(60), AT).is_ok());
    assert_eq!(check(good().to_string(), most(59), AT), Err(TokenError::LivesTooLong));
    assert_eq!(check(with("iat", json!(NOW - 1)).to_string(), most(60), AT), Err(TokenError::LivesTooLong));
    assert!(check(with("iat", json!(NOW - 1)).to_string(), most(61), AT).is_ok());

    let once = |rules: &mut Rules| rules.single_use = true;
    assert_eq!(check(with("jti", json!("id-1")).to_string(), once, AT).unwrap().id.as_deref(), Some("id-1"));
    assert_eq!(
        check(with("jti", json!("x".repeat(256))).to_string(), once, AT).unwrap().id.map(|id| id.len()),
        Some(256)
    );
    assert_eq!(check(good().to_string(), once, AT), Err(TokenError::NoId));
    assert_eq!(check(with("jti", json!("")).to_string(), once, AT), Err(TokenError::NoId));
    assert_eq!(check(with("jti", json!("x".repeat(257))).to_string(), once, AT), Err(TokenError::NoId));
    assert_eq!(check(with("jti", json!(7)).to_string(), once, AT), Err(TokenError::WrongType("jti".into())));
    assert_eq!(check(with("jti", json!(7)).to_string(), |_| {}, AT).unwrap().id, None);
}

#[test]
fn what_a_revocation_covers() {
    assert!(revoked(None, NOW, 0), "it might be older");
    assert!(revoked(Some(NOW), NOW, 0), "the same second");
    assert!(!revoked(Some(NOW + 1), NOW, 0));
    assert!(revoked(Some(NOW + 30), NOW, 30), "the issuer's clock may be ahead by as much");
    assert!(!revoked(Some(NOW + 31), NOW, 30));
    assert!(revoked(Some(i64::MAX), i64::MAX, 60));
}
