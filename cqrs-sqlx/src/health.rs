//! How the log and its consumers are.

use std::fmt;
use std::time::Duration;

/// A transaction that holds the horizon: it has written to the log, or is about to, and has not
/// ended. No consumer passes what was written after it began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HorizonHolder {
    /// The process of the server behind its session; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The name under which a transaction was prepared: commit it, or roll it back.
    pub prepared: Option<String>,
    /// How long ago it began, by the clock of the database.
    pub age: Duration,
    /// What the session is doing: `active`, or `idle in transaction` where its client is.
    pub state: Option<String>,
    /// Its last statement, as far as the database lets this user see it.
    pub query: Option<String>,
    /// The name that its client gave itself.
    pub application: Option<String>,
}

impl fmt::Display for HorizonHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.prepared) {
            (Some(pid), _) => write!(f, "session {pid}")?,
            (None, Some(name)) => write!(f, "the prepared transaction {name:?}")?,
            (None, None) => f.write_str("a prepared transaction")?,
        }
        if let Some(application) = self.application.as_deref().filter(|name| !name.is_empty()) {
            write!(f, " of {application:?}")?;
        }
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        write!(f, ", has held the horizon for {:?}", self.age)?;
        if let Some(query) = &self.query {
            write!(f, "; its last statement: {query}")?;
        }
        Ok(())
    }
}
