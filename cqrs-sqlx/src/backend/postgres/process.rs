//! Finding the process of the server that works for a connection.
//!
//! A connection of our own has one process for all of its life, known by id and start. Behind a pooler
//! that lends processes for a transaction, each transaction takes an advisory lock as it begins, in
//! the message that begins it. The server releases it when the transaction has ended, after what it
//! wrote became visible: while somebody holds the lock the transaction is open, and once nobody does
//! it is over. The lock is shared, so that nobody is kept waiting by it, and its key is random, made
//! once for each connection.
//!
//! That says nothing about a transaction that has yet to begin, because the pooler holds back what was
//! sent. So behind a pooler nothing is committed by the statement that writes it: a `COMMIT` is sent
//! when everything before it was answered, and its transaction holds the lock by then.

use std::fmt::Write as _;
use std::sync::Arc;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use crate::backend::Process;

/// Read committed, whatever the role's default is: each statement must see what was committed before
/// it began.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The processes that one is known to be, as a table with a column `pid`.
const OWN: &str = "(SELECT pid FROM pg_stat_activity
    WHERE pid = $1 AND coalesce(backend_start::text, '') = $2) AS process";
const HOLDING: &str = "(SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND classid = $1::int8::oid AND objid = $2::int8::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS process";

/// A process behind a pooler, which no other connection has.
pub(super) fn behind_pooler() -> Process {
    // All of these bits but two are random.
    Process::Holding(Uuid::now_v7().as_u64_pair().1.cast_signed())
}

/// How a transaction begins, so that its process is found. What flushes need is a setting of the session
/// where that is its own.
pub(super) fn begin(process: &Process, flushes: bool) -> SqlStr {
    let Some(mut sql) = hold(process) else {
        return SqlStr::from_static(BEGIN);
    };
    if flushes {
        for (setting, value) in super::IN_FLUSHES {
            let _ = write!(sql, "; SET LOCAL {setting} = '{value}'");
        }
    }
    AssertSqlSafe(Arc::<str>::from(format!("{BEGIN}; {sql}"))).into_sql_str()
}

/// What a transaction has to do as it begins, so that its process is found.
pub(super) fn hold(process: &Process) -> Option<String> {
    match process {
        Process::Own { .. } => None,
        Process::Holding(key) => Some(format!("SELECT pg_advisory_xact_lock_shared({key})")),
    }
}

/// A query of the process, by its column `pid`; of none where it does not work for the connection any
/// more.
pub(super) fn ask(
    process: &Process,
    select: &str,
    condition: &str,
) -> Query<'static, sqlx::Postgres, PgArguments> {
    let text = |from: &str| AssertSqlSafe(format!("{select} FROM {from} {condition}"));
    match process {
        Process::Own { id, started } => sqlx::query(text(OWN)).bind(*id).bind(started.clone()),
        // As the server shows the key of such a lock: in halves, without a sign.
        Process::Holding(key) => {
            let half = i64::from(u32::MAX);
            sqlx::query(text(HOLDING))
                .bind((key >> 32) & half)
                .bind(key & half)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_our_own_begins_as_ever() {
        let own = Process::Own {
            id: 7,
            started: "now".to_owned(),
        };
        assert_eq!(begin(&own, true).as_str(), BEGIN);
        assert_eq!(hold(&own), None);
    }

    #[test]
    fn behind_a_pooler_a_transaction_is_marked_in_the_message_that_begins_it() {
        assert_eq!(
            begin(&Process::Holding(-7), true).as_str(),
            "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock_shared(-7); \
             SET LOCAL lock_timeout = '50ms'; SET LOCAL plan_cache_mode = 'force_generic_plan'"
        );
        assert_ne!(behind_pooler(), behind_pooler());
    }
}
