//! Configuring who may act for whom. These run as the extension's owner, who alone may write the registries.

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
}

fn not_empty(text: String, name: &'static str) -> Result<String> {
    match text.is_empty() {
        true => Err(Error::BadArgument { name, why: "must not be empty".into() }),
        false => Ok(text),
    }
}
