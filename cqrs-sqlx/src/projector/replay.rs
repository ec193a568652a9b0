//! Replaying parked events.
//!
//! A replay holds the lock of the segment, as a page does: so events of the aggregate that come
//! meanwhile wait for its end. What was applied and what is no longer parked is one transaction.
//! An aggregate's parked events are tried together, and where that fails one by one, so that those
//! in front of the one that fails are applied.

use chrono::{DateTime, Utc};
use cqrs_core::{Envelope, Error, FailurePolicy, Position, RawPayload, Result};

use super::apply::Failure;
use super::checkpoint;
use super::claim::{Segment, later};
use super::dead_letters::{self, Due, Reason};
use super::errors::{describe, is_transient};
use super::pass::Pass;
use super::queries;
use super::transaction::SqlTransaction;
use super::worker::Worker;
use crate::backend::{Backend, Parameter};
use crate::log::{EVENT_COLUMNS, read_verified};

impl<B: Backend> Worker<B> {
    /// Replays the aggregate of a segment that is due for the longest time.
    pub(super) async fn replay(&mut self, segment: Segment) -> Result<Pass> {
        let mut connection = queries::begin(&self.shared).await?;
        let found = self.find_due(connection.get(), segment).await;
        let (due, mark, now) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                queries::rollback(connection).await;
                return Ok(Pass::Elsewhere);
            }
            Err(error) => return Err(self.abandon(connection, error).await),
        };
        let mut transaction = self.transaction(connection);
        let (tried, result) = match &due {
            None => (0, self.finish(&mut transaction, segment).await.map(|()| 0)),
            Some(due) => {
                self.try_due(&mut transaction, segment, due, (mark, now))
                    .await
            }
        };
        let mut connection = transaction.into_connection();
        match (result, due) {
            (Ok(events), _) => {
                connection.end_work();
                self.doubt();
                Ok(Pass::Moved { events })
            }
            (Err(failure), None) => Err(self.abandon(connection, failure).await),
            (Err(failure), Some(_)) if is_transient(&failure.error) => {
                Err(self.abandon(connection, failure).await)
            }
            (Err(failure), Some(due)) => {
                self.roll_back(connection, &failure).await;
                if tried > 1 {
                    self.one_by_one = Some(due.aggregate);
                    return Ok(Pass::Narrowed);
                }
                self.replay_failed(segment, &due, &failure).await?;
                self.doubt();
                Ok(Pass::Failed)
            }
        }
    }

    /// Claims the segment; what is due in it. `None`: another worker has it.
    async fn find_due(
        &self,
        connection: &mut B::Connection,
        segment: Segment,
    ) -> Result<Option<(Option<Due>, Position, DateTime<Utc>)>> {
        let locked = checkpoint::lock_one::<B>(connection, self.name(), segment).await?;
        let Some((checkpoint, now)) = locked.filter(|(checkpoint, _)| checkpoint.active) else {
            return Ok(None);
        };
        let due = dead_letters::next_due::<B>(connection, self.name(), segment, now).await?;
        Ok(Some((due, checkpoint.mark, now)))
    }

    /// Applies parked events of an aggregate, forgets them and commits; how many were tried, and
    /// how many applied.
    async fn try_due(
        &self,
        transaction: &mut SqlTransaction<B>,
        segment: Segment,
        due: &Due,
        (mark, now): (Position, DateTime<Utc>),
    ) -> (usize, Result<u64, Failure>) {
        let most = if self.one_by_one.as_ref() == Some(&due.aggregate) {
            1
        } else {
            self.rules.page_size
        };
        let events = match self.parked(transaction, due, most).await {
            Ok(events) => events,
            Err(error) => return (1, Err(error.into())),
        };
        let applied = async {
            self.apply(transaction, &events, mark).await?;
            let Some(last) = events.last() else {
                let message = format!("the event at {} is not in the log any more", due.position);
                return Err(Error::other(message).into());
            };
            let connection = transaction.connection_below().await?;
            let (name, aggregate) = (self.name(), &due.aggregate);
            dead_letters::remove::<B>(connection, name, aggregate, last.position()).await?;
            // What is left of the aggregate goes on at once.
            dead_letters::make_due::<B>(connection, name, aggregate, now).await?;
            self.finish(transaction, segment).await?;
            Ok(events.len() as u64)
        };
        let result = applied.await;
        (events.len(), result)
    }

    /// The first parked events of an aggregate, up to the first that is not in the log, or
    /// cannot be read there.
    async fn parked(
        &self,
        transaction: &mut SqlTransaction<B>,
        due: &Due,
        most: u32,
    ) -> Result<Vec<Envelope<RawPayload>>> {
        let columns = EVENT_COLUMNS
            .split(", ")
            .map(|column| format!("e.{}", column.trim()))
            .collect::<Vec<_>>()
            .join(", ");
        let sql = format!(
            "SELECT {columns} FROM cqrs_dead_letter AS d \
             LEFT JOIN cqrs_event AS e ON e.position = d.position \
             WHERE d.subscription = $1 AND d.status = 'parked' AND d.aggregate_type = $2 \
             AND d.aggregate_id = $3 ORDER BY d.position LIMIT $4"
        );
        let (aggregate_type, aggregate_id) = &due.aggregate;
        let parameters = [
            Parameter::text(self.name()),
            Parameter::text(aggregate_type),
            Parameter::text(aggregate_id),
            Parameter::int(most.into()),
        ];
        let connection = transaction.connection_below().await?;
        let shared = &self.shared;
        let (mut events, mut complete) = (Vec::new(), true);
        B::fetch(connection, &sql.into(), &parameters, None, |row| {
            complete &=
                checkpoint::read(row, |row| cqrs_core::mapping::RowSource::read_i64(row, 0))?
                    .is_some();
            if complete {
                match read_verified(&shared.hashing, row) {
                    Ok(event) => events.push(event),
                    Err(error) if events.is_empty() => return Err(error),
                    // It fails when it is the first.
                    Err(_) => complete = false,
                }
            }
            Ok(())
        })
        .await?;
        Ok(events)
    }

    /// Writes down when the next replay is, and commits.
    async fn finish(
        &self,
        transaction: &mut SqlTransaction<B>,
        segment: Segment,
    ) -> Result<(), Failure> {
        let connection = transaction.connection_below().await?;
        dead_letters::note_next::<B>(connection, self.name(), segment).await?;
        transaction.commit(false).await?;
        Ok(())
    }

    /// Records that the first parked event of an aggregate failed again.
    async fn replay_failed(&self, segment: Segment, due: &Due, failure: &Failure) -> Result<()> {
        let error = describe(&failure.error);
        tracing::warn!(
            subscription = self.name(),
            position = due.position.0,
            error,
            "a parked event failed again"
        );
        let mut connection = queries::begin(&self.shared).await?;
        let recorded = self
            .record_replay(connection.get(), segment, due, &error)
            .await;
        queries::end(connection, recorded).await
    }

    async fn record_replay(
        &self,
        connection: &mut B::Connection,
        segment: Segment,
        due: &Due,
        error: &str,
    ) -> Result<()> {
        // Another worker may be at the same event by now, and hang as long.
        checkpoint::wait_for_one::<B>(connection, self.name(), segment).await?;
        let Some((Some(found), _, now)) = self.find_due(connection, segment).await? else {
            // Somebody has paused it, or replayed what was due.
            return Ok(());
        };
        if (found.position, found.attempts) != (due.position, due.attempts) {
            return Ok(());
        }
        let replay_at = match self.subscription.policy() {
            FailurePolicy::Park(parking) => parking
                .replay_interval()
                .map(|interval| later(now, interval))
                .transpose()?,
            _ => None,
        };
        let reason = Reason {
            attempts: due.attempts.saturating_add(1),
            error,
            at: now,
            history: &due.history,
        };
        dead_letters::record_failure::<B>(connection, self.name(), due, &reason, replay_at).await?;
        dead_letters::note_next::<B>(connection, self.name(), segment).await
    }
}
