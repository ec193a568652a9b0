//! What becomes of a page that failed.

use cqrs_core::{Error, FailurePolicy, Position, Result};

use super::apply::Failure;
use super::checkpoint::{self, Failed};
use super::claim::{Claim, later};
use super::dead_letters::{self, Fate, Reason};
use super::errors::describe;
use super::narrow::Narrow;
use super::pass::Pass;
use super::queries;
use super::worker::Worker;
use crate::backend::{Backend, Parameter};
use crate::metrics;

impl<B: Backend> Worker<B> {
    /// Looks for the event that is to blame where the page has several; else records that it
    /// failed, and leaves it to the policy when it has failed often enough.
    pub(super) async fn fail(&mut self, claim: &Claim, failure: Failure) -> Result<Pass> {
        if failure.error.is_of_page() {
            return self.halt_page(claim, &describe(&failure.error)).await;
        }
        if claim.rows > 1 {
            let place = match (&failure.error, &claim.unreadable) {
                (_, Some(_)) => Some(claim.readable()),
                (Error::Undecodable { position, .. }, None) => claim.rows_before(*position),
                _ => None,
            };
            self.narrow = Some(match place {
                Some(0) => Narrow::singly(claim, 1),
                Some(before) => Narrow::before(claim, before),
                None if failure.timed_out || self.subscription.has_side_effects() => {
                    Narrow::singly(claim, claim.rows)
                }
                None => Narrow::halves(claim, claim.rows),
            });
            return Ok(Pass::Narrowed);
        }
        // From here on the count of its failures keeps pages to this event.
        self.narrow = None;
        let name = self.name().to_owned();
        metrics::failed(&name);
        let position = claim.first;
        let message = describe(&failure.error);
        let failed = Failed {
            name: &name,
            segment: claim.segment,
            from: claim.from,
            attempts: claim.attempts,
            position,
            error: &message,
            at: later(claim.now, claim.age())?,
        };
        let attempts = claim.attempts.saturating_add(1);
        if let Some(delay) = self.rules.delays.after(attempts) {
            let retry_at = Some(later(claim.now, claim.age().saturating_add(delay))?);
            if checkpoint::record_failure(&self.shared, &failed, retry_at).await? {
                warn(&failed, "an event failed and will be tried again");
            }
            return Ok(Pass::Failed);
        }
        match (self.subscription.policy(), position) {
            (FailurePolicy::Skip | FailurePolicy::Park(_), Some(position)) => {
                self.doubt();
                self.put_aside(&failed, position).await
            }
            _ => self.halt(&failed).await,
        }
    }

    /// There is no room among the parked events for one of the page.
    pub(super) async fn parked_full(&mut self, claim: &Claim, place: usize) -> Result<Pass> {
        if place > 0 {
            self.narrow = Some(Narrow::before(claim, place));
            return Ok(Pass::Narrowed);
        }
        if claim.rows > 1 {
            self.narrow = Some(Narrow::singly(claim, 1));
            return Ok(Pass::Narrowed);
        }
        let message = format!("{}: a later event of a parked aggregate", full(self.room()));
        self.halt_page(claim, &message).await
    }

    /// Halts at the first event of a page, without another try.
    async fn halt_page(&mut self, claim: &Claim, error: &str) -> Result<Pass> {
        self.narrow = None;
        self.halt(&Failed {
            name: self.name(),
            segment: claim.segment,
            from: claim.from,
            attempts: claim.attempts,
            position: claim.first,
            error,
            at: later(claim.now, claim.age())?,
        })
        .await
    }

    async fn halt(&self, failed: &Failed<'_>) -> Result<Pass> {
        if checkpoint::record_failure(&self.shared, failed, None).await? {
            warn(failed, "the segment is halted");
            // Another may be further behind.
            if let Some(least) = checkpoint::find(&self.shared, self.name()).await? {
                self.tell(least.position, least.halted);
            }
        }
        Ok(Pass::Failed)
    }

    /// Parks or skips an event and moves the checkpoint behind it, in one transaction.
    async fn put_aside(&self, failed: &Failed<'_>, position: Position) -> Result<Pass> {
        let mut connection = queries::begin(&self.shared).await?;
        let outcome = self.put_aside_in(connection.get(), failed, position).await;
        match outcome {
            Ok(Aside::Put) => {
                B::commit(connection.get()).await?;
                connection.end_work();
                warn(failed, "an event is among the dead letters");
                Ok(Pass::Failed)
            }
            Ok(Aside::Changed) => {
                queries::rollback(connection).await;
                Ok(Pass::Failed)
            }
            Ok(Aside::Full) => {
                queries::rollback(connection).await;
                let message = format!("{}: {}", full(self.room()), failed.error);
                self.halt(&Failed {
                    error: &message,
                    ..*failed
                })
                .await
            }
            Err(error) => {
                queries::rollback(connection).await;
                Err(error)
            }
        }
    }

    async fn put_aside_in(
        &self,
        connection: &mut B::Connection,
        failed: &Failed<'_>,
        position: Position,
    ) -> Result<Aside> {
        let locked = checkpoint::wait_for_one::<B>(connection, failed.name, failed.segment).await?;
        let Some((checkpoint, now)) = locked.filter(|(checkpoint, _)| {
            checkpoint.active
                && checkpoint.position == failed.from
                && checkpoint.failed_attempts == failed.attempts
                // The segments may have been told to change since the page was read.
                && checkpoint.barrier.is_none_or(|end| position <= end)
        }) else {
            return Ok(Aside::Changed);
        };
        let fate = match self.subscription.policy() {
            FailurePolicy::Park(parking) => {
                let count = dead_letters::count::<B>(connection, failed.name).await?;
                if count >= self.room() {
                    return Ok(Aside::Full);
                }
                let interval = parking.replay_interval();
                Fate::Parked {
                    replay_at: interval.map(|interval| later(now, interval)).transpose()?,
                }
            }
            _ => Fate::Skipped,
        };
        let reason = Reason {
            attempts: failed.attempts.saturating_add(1),
            error: failed.error,
            at: now,
            history: &checkpoint.history,
        };
        dead_letters::put::<B>(connection, failed.name, position, fate, &reason).await?;
        let sql = format!(
            "UPDATE cqrs_segment SET position = $3, {}, updated_at = {} \
             WHERE subscription = $1 AND segment = $2",
            checkpoint::FORGETS_FAILURES,
            B::DIALECT.now
        );
        let parameters = [
            Parameter::text(failed.name),
            Parameter::int(failed.segment.number),
            Parameter::int(position.0),
        ];
        B::execute(connection, &sql.into(), &parameters).await?;
        if fate != Fate::Skipped {
            dead_letters::note_next::<B>(connection, failed.name, checkpoint.segment).await?;
        }
        Ok(Aside::Put)
    }
}

/// What became of an event that was to be parked or skipped.
enum Aside {
    Put,
    /// Another worker has changed the segment.
    Changed,
    /// As many events are parked as may be.
    Full,
}

fn full(room: u64) -> String {
    format!("as many events are parked as may be ({room}); replay or discard some, then resume")
}

fn warn(failed: &Failed<'_>, what: &'static str) {
    tracing::warn!(
        subscription = failed.name,
        segment = failed.segment.number,
        position = failed.position.map(|position| position.0),
        attempts = failed.attempts.saturating_add(1),
        error = failed.error,
        "{what}"
    );
}
