//! What custody.posture() needs to know and SQL cannot see without a superuser's rights.

use crate::audit::{incarnation, key};
use crate::error::Error;
use crate::pg::{data, session};
use crate::sql_functions;

sql_functions! {
    custody_key_problem, pg_finfo_custody_key_problem => |_| {
        let problem = match incarnation::written()? {
            None => Some("this database has no incarnation".to_owned()),
            Some(incarnation) => match key::current(incarnation).and_then(|key_id| key::check(&key_id)) {
                Ok(()) => None,
                // The path is the server's own business.
                Err(Error::KeyMissing { why, .. }) => Some(why),
                Err(other) => Some(other.report().message),
            },
        };
        Ok(problem.and_then(|p| data::text(&p)))
    };
    custody_preloaded, pg_finfo_custody_preloaded => |_| Ok(crate::pg::call::value(session::preloaded()));
}
