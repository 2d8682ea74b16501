//! Registering the keys that tokens may be signed with: one, or an issuer's key set. These run as the extension's owner.

use pgrx::prelude::*;

use custody_core::token::jwks::{self, LONGEST_KID, SetKey};
use custody_core::token::{Algorithm, TokenPublicKey};

use crate::error::{Error, Result};
use crate::pg::call::{Call, VOID};
use crate::pg::data::{self, Nulled};
use crate::pg::{call, spi};
use crate::sql_functions;

sql_functions! {
    custody_add_token_key, pg_finfo_custody_add_token_key => |call: &mut Call| {
        let kid = not_empty(call.required(0, "kid")?, "kid")?;
        if kid.len() > LONGEST_KID {
            return Err(Error::BadArgument { name: "kid", why: format!("must not be longer than {LONGEST_KID} bytes") });
        }
        let public_key: Vec<u8> = call.required(1, "public_key")?;
        let algorithm: String = call.required(4, "algorithm")?;
        let not_before: TimestampWithTimeZone = call.required(5, "not_before")?;
        let not_after: Option<TimestampWithTimeZone> = call.optional(6);
        let rules = Rules {
            audience: call.required(2, "audience")?,
            tenant_claim: call.required(3, "tenant_claim")?,
            issuer: call.optional(7),
            role_claim: call.optional(8),
            max_lifetime: call.optional(9),
            single_use: call.optional(10).unwrap_or(false),
        };
        rules.check()?;
        let Some(algorithm) = Algorithm::from_name(&algorithm) else {
            return Err(Error::BadArgument { name: "algorithm", why: "must be EdDSA, ES256 or RS256".into() });
        };
        let key = TokenPublicKey::from_bytes(algorithm, &public_key)
            .map_err(|why| Error::BadArgument { name: "public_key", why: why.to_string() })?;
        rules.insert(&kid, &key, None, Some(not_before), not_after)?;
        Ok(VOID)
    };
    custody_load_token_keys, pg_finfo_custody_load_token_keys => |call: &mut Call| {
        let set: &str = call.required(0, "jwks")?;
        let name = not_empty(call.required(3, "key_set")?, "key_set")?;
        let overlap: Interval = call.required(4, "overlap")?;
        let rules = Rules {
            audience: call.required(1, "audience")?,
            tenant_claim: call.required(2, "tenant_claim")?,
            issuer: call.optional(5),
            role_claim: call.optional(6),
            max_lifetime: call.optional(7),
            single_use: call.required(8, "single_use")?,
        };
        rules.check()?;
        let keys = jwks::read(set.as_bytes()).map_err(|why| Error::BadKeySet { why: why.to_string() })?;
        let done = load(&name, &keys, &rules, overlap)?;
        call.return_rows(done.into_iter().map(Done::columns))
    };
}

/// What the claims of a key's tokens must say.
struct Rules {
    audience: String,
    tenant_claim: String,
    issuer: Option<String>,
    role_claim: Option<String>,
    max_lifetime: Option<i32>,
    single_use: bool,
}

impl Rules {
    fn check(&self) -> Result<()> {
        let texts = [
            ("audience", Some(&self.audience)),
            ("tenant_claim", Some(&self.tenant_claim)),
            ("issuer", self.issuer.as_ref()),
            ("role_claim", self.role_claim.as_ref()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                not_empty(text.clone(), name)?;
            }
        }
        match self.max_lifetime {
            Some(..=0) => Err(Error::BadArgument { name: "max_lifetime", why: "must be at least one second".into() }),
            _ => Ok(()),
        }
    }

    /// Registers a key; it holds from now on, unless said otherwise.
    fn insert(
        &self,
        kid: &str,
        key: &TokenPublicKey,
        key_set: Option<&str>,
        not_before: Option<TimestampWithTimeZone>,
        not_after: Option<TimestampWithTimeZone>,
    ) -> Result<()> {
        let mut values = vec![
            kid.into(),
            key.algorithm().name().into(),
            key.to_bytes().into(),
            self.audience.as_str().into(),
            self.tenant_claim.as_str().into(),
            not_before.into(),
            not_after.into(),
        ];
        let more = [
            key_set.into(),
            self.issuer.as_deref().into(),
            self.role_claim.as_deref().into(),
            self.max_lifetime.into(),
            self.single_use.into(),
        ];
        // Until ALTER EXTENSION UPDATE has run, the table has the columns of 0.1.0 alone.
        let plain = key_set.or(self.issuer.as_deref()).or(self.role_claim.as_deref()).is_none();
        if plain && self.max_lifetime.is_none() && !self.single_use {
            return spi::run(
                "INSERT INTO custody.token_key (kid, algorithm, public_key, audience, tenant_claim, not_before, not_after)
                 VALUES ($1, $2, $3, $4, $5, coalesce($6, pg_catalog.now()), $7)",
                &values,
            );
        }
        values.extend(more);
        spi::run(
            "INSERT INTO custody.token_key (kid, algorithm, public_key, audience, tenant_claim, not_before, not_after, key_set, issuer, role_claim,
               max_lifetime, single_use)
             VALUES ($1, $2, $3, $4, $5, coalesce($6, pg_catalog.now()), $7, $8, $9, $10, $11, $12)",
            &values,
        )
    }

    /// Makes a key of the set what the set now says, and tells whether its key was another.
    fn update(&self, kid: &str, key: &TokenPublicKey) -> Result<()> {
        spi::run(
            "UPDATE custody.token_key k SET algorithm = $2, public_key = $3, audience = $4, tenant_claim = $5, not_after = NULL, issuer = $6,
               role_claim = $7, max_lifetime = $8, single_use = $9,
               not_before = CASE WHEN k.public_key = $3 THEN k.not_before ELSE pg_catalog.now() END
             WHERE k.kid = $1",
            &[
                kid.into(),
                key.algorithm().name().into(),
                key.to_bytes().into(),
                self.audience.as_str().into(),
                self.tenant_claim.as_str().into(),
                self.issuer.as_deref().into(),
                self.role_claim.as_deref().into(),
                self.max_lifetime.into(),
                self.single_use.into(),
            ],
        )
    }
}

/// What was done with one key.
struct Done {
    kid: Option<String>,
    algorithm: Option<String>,
    action: &'static str,
    reason: Option<String>,
    not_after: Option<TimestampWithTimeZone>,
}

impl Done {
    fn columns(self) -> Vec<Nulled> {
        let text = |value: Option<String>| value.as_deref().and_then(data::text);
        vec![
            text(self.kid),
            text(self.algorithm),
            data::text(self.action),
            text(self.reason),
            self.not_after.and_then(call::value),
        ]
    }
}

/// A key that is registered under a name, next to what a set says of it.
struct Before {
    ours: bool,
    same_key: bool,
    same_rules: bool,
    key_set: Option<String>,
}

fn load(name: &str, keys: &[SetKey], rules: &Rules, overlap: Interval) -> Result<Vec<Done>> {
    if !keys.iter().any(|key| key.key.is_ok()) {
        let each = |key: &SetKey| key.key.as_ref().err().map(ToString::to_string);
        let why = match keys.iter().find_map(each) {
            Some(why) => format!("it has no key that could be used; of the first: {why}"),
            None => "it has no keys".into(),
        };
        return Err(Error::BadKeySet { why });
    }
    let negative = spi::rows("SELECT $1 < interval '0'", &[overlap.into()], |row| row.get::<bool>(1))?;
    if negative.into_iter().flatten().any(|negative| negative) {
        return Err(Error::BadArgument { name: "overlap", why: "must not be negative".into() });
    }
    // Two loads at once would each retire what the other adds.
    spi::run("LOCK TABLE custody.token_key IN SHARE ROW EXCLUSIVE MODE", &[])?;
    let mut done = Vec::new();
    let mut current = Vec::new();
    for SetKey { kid, key } in keys {
        let (action, reason) = match (kid, key) {
            (Some(kid), Ok(key)) => put(name, kid, key, rules)?,
            (_, Err(why)) => ("ignored", Some(why.to_string())),
            (None, Ok(_)) => return Err(Error::internal("a key without a name was taken")),
        };
        if action != "ignored" {
            current.extend(kid.clone());
        }
        let algorithm = key.as_ref().ok().map(|key| key.algorithm().name().to_owned());
        done.push(Done { kid: kid.clone(), algorithm, action, reason, not_after: None });
    }
    if current.is_empty() {
        return Err(Error::BadKeySet {
            why: "every kid in it that could be used belongs to another set or key".into(),
        });
    }
    done.extend(retire(name, &current, overlap)?);
    Ok(done)
}

/// One key of a set.
fn put(name: &str, kid: &str, key: &TokenPublicKey, rules: &Rules) -> Result<(&'static str, Option<String>)> {
    let before = spi::rows_now(
        "SELECT k.key_set IS NOT DISTINCT FROM $2, k.algorithm = $3 AND k.public_key = $4,
           k.not_after IS NULL AND ROW (k.audience, k.tenant_claim, k.issuer, k.role_claim, k.max_lifetime, k.single_use)
             IS NOT DISTINCT FROM ROW ($5, $6, $7, $8, $9, $10), k.key_set
         FROM custody.token_key k WHERE k.kid = $1",
        &[
            kid.into(),
            name.into(),
            key.algorithm().name().into(),
            key.to_bytes().into(),
            rules.audience.as_str().into(),
            rules.tenant_claim.as_str().into(),
            rules.issuer.as_deref().into(),
            rules.role_claim.as_deref().into(),
            rules.max_lifetime.into(),
            rules.single_use.into(),
        ],
        |row| {
            let is = |n| Ok::<_, pgrx::spi::SpiError>(row.get::<bool>(n)?.unwrap_or(false));
            Ok(Before { ours: is(1)?, same_key: is(2)?, same_rules: is(3)?, key_set: row.get(4)? })
        },
    )?;
    Ok(match before.into_iter().next() {
        None => {
            rules.insert(kid, key, Some(name), None, None)?;
            ("added", None)
        }
        Some(Before { ours: false, key_set, .. }) => {
            let by = key_set.map_or_else(|| "by custody.add_token_key".into(), |set| format!("in key set \"{set}\""));
            ("ignored", Some(format!("its kid is registered {by} already")))
        }
        Some(Before { same_key: true, same_rules: true, .. }) => ("kept", None),
        Some(Before { same_key, .. }) => {
            rules.update(kid, key)?;
            (if same_key { "changed" } else { "replaced" }, None)
        }
    })
}

/// Gives the keys that the set no longer has an end, and takes away those that have come to theirs.
fn retire(name: &str, current: &[String], overlap: Interval) -> Result<Vec<Done>> {
    let missing = |sql: &str, action: &'static str, reason: &str| {
        let mut arguments = vec![name.into(), current.to_vec().into()];
        if sql.contains("$3") {
            arguments.push(overlap.into());
        }
        spi::rows_now(sql, &arguments, |row| {
            Ok(Done {
                kid: row.get(1)?,
                algorithm: row.get(2)?,
                action,
                reason: Some(reason.into()),
                not_after: row.get(3)?,
            })
        })
    };
    let mut done = missing(
        "DELETE FROM custody.token_key k WHERE k.key_set = $1 AND NOT k.kid = ANY ($2) AND k.not_after <= pg_catalog.now()
         RETURNING k.kid, k.algorithm, k.not_after",
        "removed",
        "the set no longer has it, and its time is over",
    )?;
    // One that was added just now needs an end after its beginning.
    missing(
        "UPDATE custody.token_key k
         SET not_after = greatest(least(k.not_after, pg_catalog.now() + $3), k.not_before + interval '1 microsecond')
         WHERE k.key_set = $1 AND NOT k.kid = ANY ($2) AND (k.not_after IS NULL OR k.not_after > pg_catalog.now() + $3)
         RETURNING k.kid, k.algorithm, k.not_after",
        "retired",
        "",
    )?;
    done.extend(missing(
        "SELECT k.kid, k.algorithm, k.not_after FROM custody.token_key k WHERE k.key_set = $1 AND NOT k.kid = ANY ($2) ORDER BY k.kid",
        "retired",
        "the set no longer has it",
    )?);
    Ok(done)
}

fn not_empty(text: String, name: &'static str) -> Result<String> {
    match text.is_empty() {
        true => Err(Error::BadArgument { name, why: "must not be empty".into() }),
        false => Ok(text),
    }
}
