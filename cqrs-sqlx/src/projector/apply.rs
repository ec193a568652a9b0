//! Has handlers apply the events of a page, and ends what they were interrupted in.

use cqrs_core::__private::catch_panic;
use cqrs_core::{Envelope, Error, FailurePolicy, Position, RawPayload, Result, StoreErrorKind};
use tracing::Instrument;

use super::claim::Claim;
use super::dead_letters;
use super::queries;
use super::transaction::SqlTransaction;
use super::worker::Worker;
use crate::backend::Backend;
use crate::connections::Connection;
use crate::reads::is_unavailable;

/// Why a page was not applied.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the handler was interrupted, so that the connection may be in the middle of
    /// something: it panicked, or took too long.
    pub(super) interrupted: bool,
    /// Whether it took too long.
    pub(super) timed_out: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            interrupted: false,
            timed_out: false,
        }
    }
}

impl<B: Backend> Worker<B> {
    /// Has the handlers apply events.
    pub(super) async fn apply(
        &self,
        transaction: &mut SqlTransaction<B>,
        page: &[Envelope<RawPayload>],
        mark: Position,
    ) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(());
        };
        let span = tracing::info_span!(
            "projection.page",
            subscription = self.name(),
            events = page.len(),
            first = first.position().0,
            last = last.position().0,
        );
        let deadline = self.rules.deadline;
        transaction.mark().await?;
        let applied =
            catch_panic(self.subscription.apply(page, mark, transaction)).instrument(span);
        match tokio::time::timeout(deadline, applied).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(panic)) => Err(Failure {
                error: panic,
                interrupted: true,
                timed_out: false,
            }),
            Err(_) => Err(self.too_late(transaction).await),
        }
    }

    /// The failure of a page that takes too long. Where it waits for a lock, somebody changes or indexes
    /// a table, and no event is to blame.
    pub(super) async fn too_late(&self, transaction: &mut SqlTransaction<B>) -> Failure {
        let deadline = self.rules.deadline;
        let process = transaction.process();
        let error = match self.shared.backend.give_up_waiting(&process).await {
            Ok(false) => Error::other(format!("the page was not applied within {deadline:?}")),
            Ok(true) => Error::store(
                StoreErrorKind::Contention,
                format!("the page waited for a lock of the database for {deadline:?}"),
            ),
            Err(error) => error,
        };
        Failure {
            error,
            interrupted: true,
            timed_out: true,
        }
    }

    /// Takes the events of parked aggregates out of the page, and parks them. The inner error is
    /// the place in the page of the first for which there is no room.
    pub(super) async fn hold_back(
        &self,
        transaction: &mut SqlTransaction<B>,
        claim: &mut Claim,
    ) -> Result<Result<(), usize>> {
        let connection = transaction.connection_below().await?;
        let parked = dead_letters::parked_aggregates::<B>(connection, self.name()).await?;
        let is_held: Vec<bool> = claim
            .page
            .iter()
            .map(|event| dead_letters::is_of(&parked, event))
            .collect();
        let held = is_held.iter().filter(|held| **held).count();
        if held > 0 {
            let count = dead_letters::count::<B>(connection, self.name()).await?;
            let room = usize::try_from(self.room().saturating_sub(count)).unwrap_or(usize::MAX);
            if held > room {
                let mut places = (0..).zip(&is_held).filter(|(_, held)| **held);
                let place = places.nth(room).map_or(0, |(place, _)| place);
                return Ok(Err(place));
            }
        }
        let page = std::mem::take(&mut claim.page);
        let (held, free): (Vec<_>, Vec<_>) =
            page.into_iter().zip(is_held).partition(|(_, held)| *held);
        claim.page = free.into_iter().map(|(event, _)| event).collect();
        let held: Vec<_> = held.into_iter().map(|(event, _)| event).collect();
        claim.held = held.iter().map(Envelope::position).collect();
        if !held.is_empty() {
            dead_letters::put_behind::<B>(connection, self.name(), &held).await?;
        }
        Ok(Ok(()))
    }

    /// How many events may be parked. What was parked under another policy still holds others back.
    pub(super) fn room(&self) -> u64 {
        match self.subscription.policy() {
            FailurePolicy::Park(parking) => parking.limit().into(),
            _ => cqrs_core::Parking::default().limit().into(),
        }
    }

    /// Gives up on a transaction through no fault of the handlers.
    pub(super) async fn abandon(
        &mut self,
        connection: Connection<B>,
        failure: impl Into<Failure>,
    ) -> Error {
        let failure = failure.into();
        // Also where nobody could be asked why it takes so long: what was interrupted has to end.
        if is_unavailable(&failure.error) && !failure.interrupted {
            queries::discard(connection, &self.shared.writers);
        } else {
            self.roll_back(connection, &failure).await;
        }
        self.doubt();
        failure.error
    }

    /// Ends the transaction of a page that failed. When this returns, its locks are free.
    pub(super) async fn roll_back(&self, mut connection: Connection<B>, failure: &Failure) {
        if !failure.interrupted {
            return queries::rollback(connection).await;
        }
        let process = B::process(connection.get());
        // It is repaired or closed when it is given back.
        drop(connection);
        queries::end_what_was_left(&self.shared, self.name(), process).await;
    }
}
