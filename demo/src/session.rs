//! A session whose statements are shown as they run.

use std::sync::{Arc, Mutex};

use custody_harness::{Cluster, Result};
use postgres::error::DbError;
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::token::Token;
use crate::{DATABASE, expect, print};

/// What a statement returned, as text.
#[derive(Default)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
    /// Rows that the last command changed or returned.
    pub affected: u64,
}

impl Table {
    /// A cell; NULL and what is not there read as the empty text.
    pub fn cell(&self, row: usize, column: usize) -> &str {
        self.rows.get(row).and_then(|r| r.get(column)).and_then(Option::as_deref).unwrap_or_default()
    }

    /// A cell that is a number.
    pub fn number(&self, row: usize, column: usize) -> Result<i64> {
        let cell = self.cell(row, column);
        cell.parse().map_err(|_| format!("\"{cell}\" is not a number").into())
    }
}

pub struct Session {
    who: String,
    pub client: Client,
    warnings: Arc<Mutex<Vec<String>>>,
    in_transaction: bool,
}

impl Session {
    pub fn open(cluster: &Cluster, who: &str) -> Result<Self> {
        Self::with(cluster.config(DATABASE, who), who)
    }

    /// With what else the connection asks for.
    pub fn with(mut config: Config, who: &str) -> Result<Self> {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&warnings);
        config.application_name("custody-demo").notice_callback(move |notice| {
            if notice.severity() == "WARNING"
                && let Ok(mut kept) = kept.lock()
            {
                kept.push(format!("WARNING {}: {}", notice.code().code(), notice.message()));
            }
        });
        let client = config.connect(NoTls).map_err(|e| described(&e))?;
        Ok(Self { who: who.into(), client, warnings, in_transaction: false })
    }

    /// Shows a statement, runs it, and shows what it returns.
    pub fn show(&mut self, sql: &str) -> Result<Table> {
        let table = self.run(sql)?;
        print::table(&table);
        Ok(table)
    }

    /// Shows a statement and runs it.
    pub fn run(&mut self, sql: &str) -> Result<Table> {
        self.print(sql);
        let outcome = self.quiet(sql);
        self.show_warnings();
        outcome
    }

    pub fn print(&self, sql: &str) {
        print::sql(&self.who, sql);
    }

    /// Runs a statement that is no part of the story.
    pub fn quiet(&mut self, sql: &str) -> Result<Table> {
        self.attempt(sql).map_err(|e| format!("{}, in a statement of {}:\n{sql}", described(&e), self.who).into())
    }

    /// One number, quietly.
    pub fn number(&mut self, sql: &str) -> Result<i64> {
        self.quiet(sql)?.number(0, 0)
    }

    /// One text, quietly.
    pub fn one(&mut self, sql: &str) -> Result<String> {
        Ok(self.quiet(sql)?.cell(0, 0).to_owned())
    }

    /// Shows a statement that must be refused with this SQLSTATE, and the refusal. The transaction, if there is one, goes on.
    pub fn refused(&mut self, sql: &str, sqlstate: &str) -> Result<DbError> {
        self.print(sql);
        let outcome = self.savepoint(|s| s.attempt(sql))?;
        self.show_warnings();
        self.judged(sql, sqlstate, outcome.map(|t| t.affected))
    }

    /// Shows a token that must be refused with this SQLSTATE.
    pub fn token_refused(&mut self, token: &Token, sqlstate: &str, remark: &str) -> Result<()> {
        let sql = format!("SELECT custody.authenticate($1);  -- {remark}");
        self.print(&sql);
        let outcome = self.savepoint(|s| s.client.execute("SELECT custody.authenticate($1)", &[&token.text]))?;
        self.judged(&sql, sqlstate, outcome).map(|_| ())
    }

    fn judged(&self, sql: &str, sqlstate: &str, outcome: std::result::Result<u64, postgres::Error>) -> Result<DbError> {
        let claim = format!("{} is refused: {sql}", self.who);
        let happened = match outcome {
            Err(e) => match e.as_db_error() {
                Some(db) if db.code().code() == sqlstate => {
                    print::refusal(db);
                    return Ok(db.clone());
                }
                _ => described(&e),
            },
            Ok(rows) => format!("no error, {rows} rows"),
        };
        expect::unmet(&claim, format!("an error with SQLSTATE {sqlstate}"), &happened)?;
        Err(happened.into())
    }

    fn savepoint<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Result<T> {
        if self.in_transaction {
            self.quiet("SAVEPOINT before")?;
        }
        let outcome = act(self);
        if self.in_transaction {
            self.quiet("ROLLBACK TO before")?;
        }
        Ok(outcome)
    }

    /// BEGIN, and the context from a token.
    pub fn begin(&mut self, token: &Token) -> Result<()> {
        self.print("BEGIN;");
        self.print(&format!("SELECT custody.authenticate($1);  -- $1: {}'s token", token.subject));
        self.quietly_begin(token)
    }

    pub fn quietly_begin(&mut self, token: &Token) -> Result<()> {
        self.quiet("BEGIN")?;
        self.in_transaction = true;
        self.client.execute("SELECT custody.authenticate($1)", &[&token.text]).map_err(|e| described(&e))?;
        Ok(())
    }

    /// COMMIT or ROLLBACK.
    pub fn end(&mut self, how: &str) -> Result<()> {
        self.print(how);
        self.quietly_end(how)
    }

    pub fn quietly_end(&mut self, how: &str) -> Result<()> {
        self.in_transaction = false;
        self.quiet(how).map(|_| ())
    }

    fn attempt(&mut self, sql: &str) -> std::result::Result<Table, postgres::Error> {
        let mut table = Table::default();
        for message in self.client.simple_query(sql)? {
            match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    table.columns = columns.iter().map(|c| c.name().to_owned()).collect()
                }
                SimpleQueryMessage::Row(row) => {
                    table.rows.push((0..row.len()).map(|i| row.get(i).map(ToOwned::to_owned)).collect())
                }
                SimpleQueryMessage::CommandComplete(n) => table.affected = n,
                _ => {}
            }
        }
        Ok(table)
    }

    fn show_warnings(&mut self) {
        if let Ok(mut warnings) = self.warnings.lock() {
            warnings.drain(..).for_each(|w| print::output(&w));
        }
    }
}

/// An error in one piece.
pub fn described(e: &postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => {
            let more = |name: &str, part: Option<&str>| part.map(|p| format!("\n  {name}: {p}")).unwrap_or_default();
            format!(
                "{} {}: {}{}{}",
                db.severity(),
                db.code().code(),
                db.message(),
                more("DETAIL", db.detail()),
                more("HINT", db.hint())
            )
        }
        None => e.to_string(),
    }
}
