//! Configuring who may act for whom. These run as the extension's owner, who alone may write the registries.

use pgrx::prelude::*;

use crate::error::{Error, Result};
use crate::pg::call::{Call, Oid, VOID};
use crate::pg::{session, spi};
use crate::sql_functions;

sql_functions! {
    custody_bind_role, pg_finfo_custody_bind_role => |call: &mut Call| {
        let role: Oid = call.required(0, "role")?;
        let tenant = not_empty(call.required(1, "tenant")?, "tenant")?;
        if let Some(why) = session::why_unbound(role) {
            return Err(Error::RoleNotConstrained { role: session::role_name(role), why });
        }
        spi::run(
            "INSERT INTO custody.role_binding (role, tenant) VALUES ($1, $2)
             ON CONFLICT ON CONSTRAINT role_binding_pkey DO UPDATE SET tenant = excluded.tenant",
            &[role.into(), tenant.into()],
        )?;
        Ok(VOID)
    };
    custody_allow_assume, pg_finfo_custody_allow_assume => |call: &mut Call| {
        let role: Oid = call.required(0, "role")?;
        let tenants: Vec<Option<String>> = call.required(1, "tenants")?;
        let tenants: Vec<String> = tenants
            .into_iter()
            .map(|t| not_empty(t.unwrap_or_default(), "tenants"))
            .collect::<Result<_>>()?;
        spi::run(
            "DELETE FROM custody.assume_grant g WHERE g.role OPERATOR(pg_catalog.=) $1 AND NOT g.tenant OPERATOR(pg_catalog.=) ANY ($2)",
            &[role.into(), tenants.clone().into()],
        )?;
        spi::run(
            "INSERT INTO custody.assume_grant (role, tenant) SELECT $1, t FROM pg_catalog.unnest($2) t ON CONFLICT DO NOTHING",
            &[role.into(), tenants.into()],
        )?;
        Ok(VOID)
    };
    custody_add_token_key, pg_finfo_custody_add_token_key => |call: &mut Call| {
        let kid = not_empty(call.required(0, "kid")?, "kid")?;
        let public_key: Vec<u8> = call.required(1, "public_key")?;
        let audience = not_empty(call.required(2, "audience")?, "audience")?;
        let tenant_claim = not_empty(call.required(3, "tenant_claim")?, "tenant_claim")?;
        let algorithm: String = call.required(4, "algorithm")?;
        let not_before: TimestampWithTimeZone = call.required(5, "not_before")?;
        let not_after: Option<TimestampWithTimeZone> = call.optional(6);
        if algorithm != "EdDSA" {
            return Err(Error::BadArgument { name: "algorithm", why: "must be EdDSA".into() });
        }
        if custody_core::key::PublicKey::from_bytes(&public_key).is_none() {
            let why = format!("must be the 32 bytes of an Ed25519 public key; {} bytes were given", public_key.len());
            return Err(Error::BadArgument { name: "public_key", why });
        }
        spi::run(
            "INSERT INTO custody.token_key (kid, algorithm, public_key, audience, tenant_claim, not_before, not_after)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                kid.into(),
                algorithm.into(),
                public_key.into(),
                audience.into(),
                tenant_claim.into(),
                not_before.into(),
                not_after.into(),
            ],
        )?;
        Ok(VOID)
    };
}

fn not_empty(text: String, name: &'static str) -> Result<String> {
    match text.is_empty() {
        true => Err(Error::BadArgument { name, why: "must not be empty".into() }),
        false => Ok(text),
    }
}
