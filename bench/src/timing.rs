//! Timing statements, and the WAL they write.

use std::time::Instant;

use custody_harness::Result;
use postgres::Client;

/// Seconds that statements take.
pub fn seconds(client: &mut Client, sql: &str) -> Result<f64> {
    let begun = Instant::now();
    client.batch_execute(sql)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// How far the WAL has got, in bytes.
pub fn wal_position(client: &mut Client) -> Result<f64> {
    let sql = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
    Ok(client.query_one(sql, &[])?.get(0))
}

/// The one value of a query.
pub fn one<T: for<'a> postgres::types::FromSql<'a>>(client: &mut Client, sql: &str) -> Result<T> {
    Ok(client.query_one(sql, &[])?.try_get(0)?)
}
