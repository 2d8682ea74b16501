//! custody.coverage_report: what coverage finds, written as other tools read it.

use custody_core::coverage::{Coverage, Finding, Format, Severity, Waiver};
use pgrx::spi::{SpiError, SpiHeapTupleData};

use crate::error::{Error, Result};
use crate::pg::call::Call;
use crate::pg::{data, spi};
use crate::sql_functions;

sql_functions! {
    custody_coverage_report, pg_finfo_custody_coverage_report => |call: &mut Call| {
        let format: String = call.required(0, "format")?;
        let gate: String = call.required(1, "min_severity")?;
        let format: Format = format.parse().map_err(|()| Error::BadArgument {
            name: "format",
            why: format!("must be one of {}", Format::NAMES.map(|f| f.0).join(", ")),
        })?;
        let gate = gate.parse().map_err(|()| Error::NoSuchSeverity { severity: gate })?;
        Ok(data::text(&coverage(gate)?.write(format)))
    };
}

const RFC_3339: &str = "'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'";

fn coverage(gate: Severity) -> Result<Coverage> {
    let moment = |of: &str| format!("pg_catalog.to_char({of} AT TIME ZONE 'UTC', {RFC_3339})");
    let about = format!(
        "SELECT e.extversion, pg_catalog.current_database()::text, {}
         FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'pg_custody'",
        moment("pg_catalog.statement_timestamp()")
    );
    let about = spi::rows(&about, &[], |row| Ok([text(row, 1)?, text(row, 2)?, text(row, 3)?]))?;
    let [version, database, at] =
        about.into_iter().next().ok_or_else(|| Error::internal("the extension is not there"))?;
    let findings = format!(
        "SELECT f.id, f.severity, f.schema::text, f.object, f.problem,
                pg_catalog.upper(pg_catalog.left(f.problem, 1)) OPERATOR(pg_catalog.||) pg_catalog.substr(f.problem, 2) OPERATOR(pg_catalog.||) '. '
                  OPERATOR(pg_catalog.||) f.consequence, f.fix,
                f.waiver, f.reason, f.waived_by, {}, {}
         FROM custody.judged_finding f
         ORDER BY pg_catalog.array_position(ARRAY['critical', 'high', 'medium', 'low'], f.severity), f.id COLLATE \"C\", f.schema, f.object COLLATE \"C\", f.problem COLLATE \"C\"",
        moment("f.waived_at"),
        moment("f.expires")
    );
    let findings = spi::rows(&findings, &[], |row| {
        Ok(Finding {
            id: text(row, 1)?,
            severity: severity(&text(row, 2)?),
            schema: row.get(3)?,
            object: text(row, 4)?,
            problem: text(row, 5)?,
            explanation: text(row, 6)?,
            fix: text(row, 7)?,
            waiver: match row.get::<String>(8)? {
                Some(_) => Some(waiver(row, 8)?),
                None => None,
            },
        })
    })?;
    let waivers = format!(
        "SELECT w.finding, w.object, w.state, w.reason, w.waived_by, {}, {} FROM custody.waivers() w",
        moment("w.waived_at"),
        moment("w.expires")
    );
    let waivers = spi::rows(&waivers, &[], |row| Ok((text(row, 1)?, text(row, 2)?, waiver(row, 3)?)))?;
    Ok(Coverage { version, database, at, gate, findings, waivers })
}

/// A severity that is not known is the worst.
fn severity(name: &str) -> Severity {
    name.parse().unwrap_or(Severity::Critical)
}

fn text(row: &SpiHeapTupleData<'_>, n: usize) -> std::result::Result<String, SpiError> {
    Ok(row.get::<String>(n)?.unwrap_or_default())
}

/// The columns state, reason, waived_by, waived_at, expires.
fn waiver(row: &SpiHeapTupleData<'_>, n: usize) -> std::result::Result<Waiver, SpiError> {
    Ok(Waiver {
        state: text(row, n)?,
        reason: text(row, n + 1)?,
        by: text(row, n + 2)?,
        at: text(row, n + 3)?,
        until: text(row, n + 4)?,
    })
}
