//! The rows of `cqrs_subscription`: where each subscription stands.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::mapping::{ColumnError, ColumnType, RowSource, Value};
use cqrs_core::{Error, Position, Result, StoreErrorKind};

use super::queries;
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// What [`read_row`] reads.
pub(super) const COLUMNS: &str =
    "name, position, status, failed_attempts, failed_position, error, updated_at";

/// A row of `cqrs_subscription`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) name: String,
    /// Everything up to here has been applied.
    pub(super) position: Position,
    pub(super) halted: bool,
    /// How often the page after `position` has failed.
    pub(super) failed_attempts: u32,
    /// Where it failed, as far as that is known.
    pub(super) failed_position: Option<Position>,
    /// Why it failed.
    pub(super) error: Option<String>,
    updated_at: DateTime<Utc>,
}

/// A checkpoint that is claimed: nobody else can claim it before the transaction ends.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) checkpoint: Checkpoint,
    /// How long ago the row was changed, by the clock of the database.
    pub(super) age: TimeDelta,
}

/// The statements that a subscription runs over and over.
#[derive(Debug)]
pub(super) struct CheckpointSql {
    claim: Arc<str>,
    advance: Arc<str>,
}

impl CheckpointSql {
    pub(super) fn new<B: Backend>() -> Self {
        let (now, claim) = (B::DIALECT.now, B::DIALECT.claim);
        Self {
            claim: format!("SELECT {COLUMNS}, {now} FROM cqrs_subscription WHERE name = $1{claim}")
                .into(),
            advance: format!(
                "UPDATE cqrs_subscription SET position = $2, failed_attempts = 0, \
                 failed_position = NULL, error = NULL, updated_at = {now} WHERE name = $1"
            )
            .into(),
        }
    }

    /// Claims a checkpoint within a transaction; `None` where another worker holds it, or where
    /// there is no such row.
    pub(super) async fn claim<B: Backend>(
        &self,
        connection: &mut B::Connection,
        name: &str,
    ) -> Result<Option<Claim>> {
        let mut claim = None;
        B::fetch(
            connection,
            &self.claim,
            &[Parameter::text(name)],
            None,
            |row| {
                let checkpoint = read_row(row)?;
                let now = read(row, |row| some(row.read_timestamp(7)?))?;
                claim = Some(Claim {
                    age: now - checkpoint.updated_at,
                    checkpoint,
                });
                Ok(())
            },
        )
        .await?;
        Ok(claim)
    }

    /// Moves a claimed checkpoint and forgets its failures.
    pub(super) async fn advance<B: Backend>(
        &self,
        connection: &mut B::Connection,
        name: &str,
        position: Position,
    ) -> Result<()> {
        let parameters = [Parameter::text(name), Parameter::int(position.0)];
        match B::execute(connection, &self.advance, &parameters).await? {
            1 => Ok(()),
            _ => Err(Error::store(
                StoreErrorKind::Database,
                format!("the checkpoint of subscription {name:?} disappeared while it was claimed"),
            )),
        }
    }
}

/// Makes sure that a subscription has a row.
pub(super) async fn ensure<B: Backend>(shared: &Shared<B>, name: &str) -> Result<()> {
    let sql = "INSERT INTO cqrs_subscription (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
    queries::execute(shared, &sql.into(), &[Parameter::text(name)]).await?;
    Ok(())
}

/// Reads a checkpoint without claiming it.
pub(super) async fn find<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
) -> Result<Option<Checkpoint>> {
    let select = Select {
        sql: format!("SELECT {COLUMNS} FROM cqrs_subscription WHERE name = $1").into(),
        parameters: vec![Parameter::text(name)],
    };
    let found = reads::rows(Place::Alone(shared), &select, None, read_row::<B::Row>).await?;
    Ok(found.into_iter().next())
}

/// Records that the page after a checkpoint failed once more, in a transaction of its own. `false`
/// where another worker has changed the row since it was claimed; what it found out counts.
pub(super) async fn record_failure<B: Backend>(
    shared: &Shared<B>,
    claimed: &Checkpoint,
    failed_position: Option<Position>,
    error: &str,
    halt: bool,
) -> Result<bool> {
    let sql = format!(
        "UPDATE cqrs_subscription SET failed_attempts = failed_attempts + 1, status = $4, \
         failed_position = $5, error = $6, updated_at = {} \
         WHERE name = $1 AND position = $2 AND failed_attempts = $3 AND status = 'active'",
        B::DIALECT.now
    );
    let parameters = [
        Parameter::text(&*claimed.name),
        Parameter::int(claimed.position.0),
        Parameter::int(claimed.failed_attempts.into()),
        Parameter::text(if halt { "halted" } else { "active" }),
        Parameter::new(
            ColumnType::Int64,
            failed_position.map_or(Value::Null, |position| Value::Int(position.0)),
        ),
        // No database takes NUL in text.
        Parameter::text(error.replace('\0', "\u{fffd}")),
    ];
    Ok(queries::execute(shared, &sql.into(), &parameters).await? > 0)
}

/// Sets a subscription active and forgets its failures; `false` where there is none.
pub(super) async fn reactivate<B: Backend>(shared: &Shared<B>, name: &str) -> Result<bool> {
    let sql = format!(
        "UPDATE cqrs_subscription SET status = 'active', failed_attempts = 0, \
         failed_position = NULL, error = NULL, updated_at = {} WHERE name = $1",
        B::DIALECT.now
    );
    Ok(queries::execute(shared, &sql.into(), &[Parameter::text(name)]).await? > 0)
}

/// Reads a row with [`COLUMNS`].
pub(super) fn read_row<R: RowSource>(row: &R) -> Result<Checkpoint> {
    read(row, |row| {
        Ok(Checkpoint {
            name: some(row.read_text(0)?)?.to_owned(),
            position: Position(some(row.read_i64(1)?)?),
            halted: some(row.read_text(2)?)? == "halted",
            failed_attempts: u32::try_from(some(row.read_i32(3)?)?)
                .map_err(ColumnError::invalid)?,
            failed_position: row.read_i64(4)?.map(Position),
            error: row.read_text(5)?.map(str::to_owned),
            updated_at: some(row.read_timestamp(6)?)?,
        })
    })
}

pub(super) fn read<R, T>(
    row: &R,
    read: impl FnOnce(&R) -> std::result::Result<T, ColumnError>,
) -> Result<T> {
    read(row).map_err(|error| {
        Error::store(
            StoreErrorKind::Schema,
            format!("table cqrs_subscription: {error}"),
        )
    })
}

pub(super) fn some<T>(value: Option<T>) -> std::result::Result<T, ColumnError> {
    value.ok_or(ColumnError::UnexpectedNull)
}
