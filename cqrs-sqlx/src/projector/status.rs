//! Where subscriptions stand, for operators.

use std::fmt;
use std::sync::Arc;

use cqrs_core::mapping::RowSource;
use cqrs_core::{Error, Position, Result};

use super::checkpoint::{self, Checkpoint, read, read_row, some};
use super::wake::Known;
use crate::backend::Backend;
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// Where a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: String,
    /// Everything up to here has been applied.
    pub position: Position,
    /// Whether it goes on.
    pub state: SubscriptionState,
    /// How many positions the log is ahead. Positions that were drawn and never used, and events
    /// that the subscription does not read, count too: an upper bound of the events it has yet to
    /// apply.
    pub lag: u64,
}

/// Whether a subscription goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It goes on.
    Active,
    /// The next page failed and will be tried again.
    Retrying(SubscriptionFailure),
    /// The next page failed too often. It stands still until it is
    /// [resumed](crate::SqlStore::resume).
    Halted(SubscriptionFailure),
}

/// The failure that halted a subscription, or may come to.
///
/// [`Store::wait_for`](cqrs_core::Store::wait_for) returns it inside of an
/// [`Error::Other`](cqrs_core::Error::Other) when it waits for a halted subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionFailure {
    /// The subscription.
    pub name: String,
    /// The event that could not be read, or else the first event of the page that failed. `None`
    /// where the page itself could not be read.
    pub position: Option<Position>,
    /// How often it failed.
    pub attempts: u32,
    /// Why, the last time: the messages of the error and of its sources.
    pub error: String,
}

impl fmt::Display for SubscriptionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription {:?} failed", self.name)?;
        if let Some(position) = self.position {
            write!(f, " at position {position}")?;
        }
        write!(f, " after {} attempts: {}", self.attempts, self.error)
    }
}

impl std::error::Error for SubscriptionFailure {}

impl Checkpoint {
    pub(super) fn into_failure(self) -> SubscriptionFailure {
        SubscriptionFailure {
            name: self.name,
            position: self.failed_position,
            attempts: self.failed_attempts,
            error: self.error.unwrap_or_default(),
        }
    }
}

/// Where every subscription stands, by name.
pub(crate) async fn statuses<B: Backend>(
    shared: &Arc<Shared<B>>,
) -> Result<Vec<SubscriptionStatus>> {
    let select = Select {
        sql: format!(
            "SELECT {}, (SELECT coalesce(max(position), 0) FROM cqrs_event) \
             FROM cqrs_subscription ORDER BY name{}",
            checkpoint::COLUMNS,
            B::DIALECT.byte_order
        )
        .into(),
        parameters: Vec::new(),
    };
    reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        let checkpoint = read_row(row)?;
        let last = read(row, |row| some(row.read_i64(7)?))?;
        Ok(SubscriptionStatus {
            name: checkpoint.name.clone(),
            position: checkpoint.position,
            lag: u64::try_from(last - checkpoint.position.0).unwrap_or(0),
            state: match (checkpoint.halted, checkpoint.failed_attempts) {
                (true, _) => SubscriptionState::Halted(checkpoint.into_failure()),
                (false, 0) => SubscriptionState::Active,
                (false, _) => SubscriptionState::Retrying(checkpoint.into_failure()),
            },
        })
    })
    .await
}

/// Lets a halted subscription go on.
pub(crate) async fn resume<B: Backend>(shared: &Arc<Shared<B>>, name: &str) -> Result<()> {
    if !checkpoint::reactivate(shared, name).await? {
        return Err(Error::unknown_subscription(name));
    }
    if let Some(checkpoint) = checkpoint::find(shared, name).await? {
        shared.advanced.correct(
            name,
            Known {
                position: checkpoint.position,
                halted: false,
            },
        );
    }
    shared.advanced.resumed().signal();
    Ok(())
}
