//! The end of a rebuild: the new rows take the place of those that are read.
//!
//! It is one transaction that holds the locks of all segments of both subscriptions, so that no
//! page of either is under way. In it the new rows are brought to where the others stand, at least;
//! so no reader sees time go back. Then the tables are exchanged, and the checkpoints: rows and the
//! position up to which events are in them stay together, which is what keeps each event counted
//! once.

use cqrs_core::{Error, Position, Result};

use super::apply::Failure;
use super::building::{find, name_for, run_each};
use super::checkpoint::{self, Checkpoint};
use super::claim::{Wanted, Which};
use super::errors::{describe, is_transient};
use super::transaction::SqlTransaction;
use super::worker::Worker;
use super::{queries, register};
use crate::backend::{Backend, Parameter};

/// How many pages the switch applies itself at most.
const LAST_PAGES: i64 = 10;

impl<B: Backend> Worker<B> {
    /// Exchanges the rows, where those that are built have caught up and may take over; whether
    /// it did, or somebody else has.
    ///
    /// # Errors
    ///
    /// As [`run_once`](Self::run_once); also where someone reads the table for so long that the
    /// switch is better tried again. Any other error halts the building.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rolls back what was not committed.
    pub(super) async fn switch(&mut self, horizon: Position) -> Result<bool> {
        let served = self.subscription.name();
        let (building, _) = checkpoint::all(&self.shared, self.name()).await?;
        let (served, _) = checkpoint::all(&self.shared, served).await?;
        let Some(distance) = distance(&served, &building) else {
            return Ok(false);
        };
        if distance > self.last_pages() {
            // What those have passed is decided, though the log may end before: its newest events
            // have left it, and nobody who comes now knows that there were any.
            let served = furthest(&served);
            self.further = Some(served).filter(|served| *served > horizon);
            return Ok(false);
        }
        let connection = queries::begin(&self.shared).await?;
        let mut transaction = self.transaction(connection);
        let switched = self.switch_in(&mut transaction).await;
        let mut connection = transaction.into_connection();
        match switched {
            Ok(true) => {
                connection.end_work();
                drop(connection);
                tracing::info!(
                    subscription = self.subscription.name(),
                    "rows were exchanged"
                );
                self.shared.operated.tell().await;
                Ok(true)
            }
            Ok(false) => {
                queries::rollback(connection).await;
                Ok(false)
            }
            Err(failure) if failure.interrupted => {
                self.roll_back(connection, &failure).await;
                self.doubt();
                Ok(false)
            }
            Err(failure) if is_transient(&failure.error) => {
                Err(self.abandon(connection, failure.error).await)
            }
            Err(failure) => {
                queries::rollback(connection).await;
                self.halt_building(&failure.error).await?;
                Err(failure.error)
            }
        }
    }

    /// Has the building stand still where the switch fails for a reason that does not pass, until
    /// somebody has seen to that and resumes it.
    async fn halt_building(&mut self, error: &Error) -> Result<()> {
        self.doubt();
        let error = format!(
            "the new rows could not take their place: {}",
            describe(error)
        );
        checkpoint::halt(&self.shared, self.name(), &error).await
    }

    /// How many positions the switch brings the new rows on itself.
    fn last_pages(&self) -> i64 {
        LAST_PAGES * i64::from(self.rules.page_size)
    }

    async fn switch_in(&self, transaction: &mut SqlTransaction<B>) -> Result<bool, Failure> {
        let Some(rebuilds) = self.subscription.rebuilds() else {
            return Ok(false);
        };
        let name = self.subscription.name();
        let connection = transaction.connection_below().await?;
        // One that waits to be told locks nothing.
        if !switches::<B>(connection, name).await? {
            return Ok(false);
        }
        let served = checkpoint::lock_all::<B>(connection, name).await?;
        let building = checkpoint::lock_all::<B>(connection, self.name()).await?;
        // What was found before may be of a rebuild that was given up since.
        if !switches::<B>(connection, name).await? {
            return Ok(false);
        }
        let is_ours = building.iter().all(|one| one.version == rebuilds.version);
        let distance = distance(&served, &building);
        let is_near = distance.is_some_and(|distance| distance <= self.last_pages());
        if served.is_empty() || !is_near || !is_ours {
            return Ok(false);
        }
        let target = furthest(&served);
        if !self.catch_up(transaction, &building, target).await? {
            return Ok(false);
        }
        transaction.changing(rebuilds.table.name());
        let connection = transaction.connection_below().await?;
        if !B::DIALECT.hurry.is_empty() {
            B::execute(connection, &B::DIALECT.hurry.into(), &[]).await?;
        }
        B::exchange(connection, rebuilds.table).await?;
        self.rename(connection).await?;
        B::commit(connection).await?;
        Ok(true)
    }

    /// Applies what the other rows have and the new ones do not; whether it could.
    async fn catch_up(
        &self,
        transaction: &mut SqlTransaction<B>,
        building: &[Checkpoint],
        target: Position,
    ) -> Result<bool, Failure> {
        for checkpoint in building {
            let wanted = Wanted {
                horizon: target,
                most: self.rules.page_size,
                which: Which::Named(checkpoint.segment.number),
            };
            loop {
                let connection = transaction.connection_below().await?;
                let Some(mut claim) = self.claims.claim::<B>(connection, &wanted).await? else {
                    break;
                };
                // What fails, and what is parked, is the topic of ordinary passes.
                if claim.is_due || claim.unreadable.is_some() {
                    return Ok(false);
                }
                if claim.parks && self.hold_back(transaction, &mut claim).await?.is_err() {
                    return Ok(false);
                }
                if let Err(failure) = self.apply(transaction, &claim.page, claim.mark).await {
                    let passes = is_transient(&failure.error) || failure.interrupted;
                    return if passes { Err(failure) } else { Ok(false) };
                }
            }
        }
        let connection = transaction.connection_below().await?;
        let building = checkpoint::lock_all::<B>(connection, self.name()).await?;
        Ok(building.iter().all(|one| one.position >= target))
    }

    /// Puts the checkpoints and dead letters of the new rows in the place of the others'.
    async fn rename(&self, connection: &mut B::Connection) -> Result<()> {
        let name = self.subscription.name();
        debug_assert_eq!(name_for(name), self.name());
        let record = [
            "INSERT INTO cqrs_operation (operation, subscription, detail, actor, correlation_id) \
             SELECT 'rebuilt', subscription, '', actor, correlation_id FROM cqrs_rebuild \
             WHERE subscription = $1",
            "DELETE FROM cqrs_rebuild WHERE subscription = $1",
        ];
        run_each::<B>(connection, &record, &[Parameter::text(name)]).await?;
        register::remove::<B>(connection, name).await?;
        let renames = [
            "UPDATE cqrs_segment SET subscription = $1 WHERE subscription = $2",
            "UPDATE cqrs_dead_letter SET subscription = $1 WHERE subscription = $2",
            "UPDATE cqrs_subscription SET name = $1 WHERE name = $2",
        ];
        let parameters = [Parameter::text(name), Parameter::text(self.name())];
        run_each::<B>(connection, &renames, &parameters).await
    }
}

/// Whether the new rows take the place of the others as soon as they can.
async fn switches<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<bool> {
    let rebuild = find::<B>(connection, name).await?;
    Ok(rebuild.is_some_and(|rebuild| rebuild.switches))
}

/// How many positions the new rows are behind the others; `None` where they may not take their place
/// now.
fn distance(served: &[Checkpoint], building: &[Checkpoint]) -> Option<i64> {
    let goes_on =
        |one: &Checkpoint| one.active && one.barrier.is_none() && one.failed_attempts == 0;
    // Who has paused it wants nothing to happen.
    if served.iter().any(|one| one.paused) || !building.iter().all(goes_on) {
        return None;
    }
    let least = building.iter().map(|one| one.position.0).min()?;
    Some(furthest(served).0.saturating_sub(least))
}

/// Where the segment stands that is furthest.
fn furthest(checkpoints: &[Checkpoint]) -> Position {
    let positions = checkpoints.iter().map(|checkpoint| checkpoint.position);
    positions.max().unwrap_or(Position::START)
}
