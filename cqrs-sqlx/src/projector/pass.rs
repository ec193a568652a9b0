//! One pass of one subscription: claim, read a page, apply, move the checkpoint, commit.

use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Envelope, Error, Position, RawPayload, Result, Subscription};
use tracing::Instrument;

use super::checkpoint::{self, Checkpoint, CheckpointSql, Claim};
use super::errors::{catch_panic, describe, is_transient};
use super::pace::RetryDelays;
use super::queries;
use super::transaction::SqlTransaction;
use super::wake::Known;
use crate::backend::{Backend, Parameter};
use crate::connections::Connection;
use crate::log::{EVENT_COLUMNS, read_event};
use crate::reads::is_unavailable;
use crate::statements::list;
use crate::store::Shared;

/// What a pass came to.
#[derive(Debug)]
pub(super) enum Pass {
    /// The checkpoint moved, over this many events that the subscription reads.
    Moved { events: u64 },
    /// The page holds an event that cannot be read. The next pass applies what comes before it.
    Narrowed,
    /// The checkpoint is at the horizon.
    UpToDate,
    /// Another worker has claimed the subscription.
    Elsewhere,
    /// The page failed before, and this much of the delay is left.
    Delayed(Duration),
    /// The page failed; it will be tried again after this delay.
    Failed(Duration),
    /// The subscription is halted, since long ago or since now.
    Halted,
}

/// Runs the passes of one subscription.
pub(super) struct Worker<B: Backend> {
    shared: Arc<Shared<B>>,
    subscription: Arc<Subscription<SqlTransaction<B>>>,
    checkpoints: CheckpointSql,
    page_sql: Arc<str>,
    page_size: u32,
    delays: RetryDelays,
    /// The checkpoint as far as it is known. Other processes may have moved it.
    position: Option<Position>,
    /// Where the next page ends at the latest, in front of an event that could not be read.
    bound: Option<Position>,
}

/// What was committed.
struct Applied {
    events: u64,
    position: Position,
}

/// Why a claimed page was not.
struct Failure {
    error: Error,
    /// The first and the last event of the page.
    page: Option<(Position, Position)>,
    /// Whether the projection panicked, so that the connection may be in the middle of something.
    panicked: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            page: None,
            panicked: false,
        }
    }
}

impl<B: Backend> Worker<B> {
    pub(super) fn new(
        shared: Arc<Shared<B>>,
        subscription: Arc<Subscription<SqlTransaction<B>>>,
        page_size: u32,
        delays: RetryDelays,
    ) -> Self {
        Self {
            checkpoints: CheckpointSql::new::<B>(),
            page_sql: page_sql(subscription.aggregate_types()).into(),
            shared,
            subscription,
            page_size,
            delays,
            position: None,
            bound: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.subscription.name()
    }

    pub(super) fn shared(&self) -> &Arc<Shared<B>> {
        &self.shared
    }

    /// Forgets what is known of the checkpoint, so that the next pass asks the database.
    pub(super) fn doubt(&mut self) {
        self.position = None;
    }

    /// Runs one pass up to the horizon.
    ///
    /// # Errors
    ///
    /// Those that are not the projection's: the database is away, or gave up on the transaction.
    /// Nothing was applied, and no attempt is counted. After a commit whose answer was lost the
    /// page may be applied together with its checkpoint; the next pass reads which.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rolls the page back.
    pub(super) async fn run_once(&mut self, horizon: Position) -> Result<Pass> {
        if self.position.is_some_and(|position| position >= horizon) {
            return Ok(Pass::UpToDate);
        }
        if B::DIALECT.claim.is_empty() {
            // Without row locks a claim takes the lock of all writers, so look first.
            if let Some(pass) = self.look(horizon).await? {
                return Ok(pass);
            }
        }
        let mut connection = queries::begin(&self.shared).await?;
        let claim = match self
            .checkpoints
            .claim::<B>(connection.get(), self.name())
            .await
        {
            Ok(claim) => claim,
            Err(error) => return Err(self.abandon(connection, error).await),
        };
        let Some(claim) = claim else {
            queries::rollback(connection).await;
            return Ok(self.look(horizon).await?.unwrap_or(Pass::Elsewhere));
        };
        if let Some(pass) = self.standing(&claim, horizon) {
            queries::rollback(connection).await;
            return Ok(pass);
        }
        self.work(connection, claim.checkpoint, horizon).await
    }

    /// Looks at the checkpoint without claiming it; what that says about the pass.
    async fn look(&mut self, horizon: Position) -> Result<Option<Pass>> {
        let Some(checkpoint) = checkpoint::find(&self.shared, self.name()).await? else {
            // Someone removed the row; a new one starts from the beginning.
            tracing::warn!(
                subscription = self.name(),
                "the subscription had no checkpoint, it starts over"
            );
            checkpoint::ensure(&self.shared, self.name()).await?;
            return Ok(None);
        };
        self.note(checkpoint.position, checkpoint.halted);
        if checkpoint.halted {
            return Ok(Some(Pass::Halted));
        }
        Ok((checkpoint.position >= horizon).then_some(Pass::UpToDate))
    }

    /// What a claim says about the pass, where it says that there is nothing to do.
    fn standing(&mut self, claim: &Claim, horizon: Position) -> Option<Pass> {
        let checkpoint = &claim.checkpoint;
        self.note(checkpoint.position, checkpoint.halted);
        if checkpoint.halted {
            return Some(Pass::Halted);
        }
        if checkpoint.position >= horizon {
            return Some(Pass::UpToDate);
        }
        self.delays
            .remaining(checkpoint.failed_attempts, claim.age)
            .map(Pass::Delayed)
    }

    /// Remembers where the subscription stands, and tells those who wait for it.
    fn note(&mut self, position: Position, halted: bool) {
        self.position = Some(position);
        self.bound = self.bound.filter(|bound| *bound > position);
        let known = Known { position, halted };
        self.shared.advanced.record(self.subscription.name(), known);
    }

    /// Applies the page after a claimed checkpoint.
    async fn work(
        &mut self,
        connection: Connection<B>,
        claimed: Checkpoint,
        horizon: Position,
    ) -> Result<Pass> {
        let upto = self.bound.map_or(horizon, |bound| bound.min(horizon));
        let mut transaction = SqlTransaction::new(Arc::clone(&self.shared), connection);
        let result = self
            .apply_and_commit(&mut transaction, claimed.position, upto)
            .await;
        let mut connection = transaction.into_connection();
        match result {
            Ok(applied) => {
                connection.end_work();
                self.note(applied.position, false);
                Ok(Pass::Moved {
                    events: applied.events,
                })
            }
            Err(failure) if is_transient(&failure.error) => {
                Err(self.abandon(connection, failure.error).await)
            }
            Err(failure) => {
                if failure.panicked {
                    // It is repaired or closed when it is given back.
                    drop(connection);
                } else {
                    queries::rollback(connection).await;
                }
                self.fail(claimed, failure).await
            }
        }
    }

    async fn apply_and_commit(
        &self,
        transaction: &mut SqlTransaction<B>,
        from: Position,
        upto: Position,
    ) -> Result<Applied, Failure> {
        let page = self.read_page(transaction, from, upto).await?;
        let events = page.len() as u64;
        let ends = page.first().zip(page.last());
        let ends = ends.map(|(first, last)| (first.position(), last.position()));
        let position = match ends {
            Some((_, last)) if events >= u64::from(self.page_size) => last,
            _ => upto,
        };
        let failure = |error, panicked| Failure {
            error,
            page: ends,
            panicked,
        };
        if let Some((first, last)) = ends {
            let span = tracing::info_span!(
                "projection.page",
                subscription = self.name(),
                events,
                first = first.0,
                last = last.0,
            );
            catch_panic(self.subscription.apply(&page, transaction))
                .instrument(span)
                .await
                .map_err(|panic| failure(panic, true))?
                .map_err(|error| failure(error, false))?;
        }
        self.advance_and_commit(transaction, position)
            .await
            .map_err(|error| failure(error, false))?;
        Ok(Applied { events, position })
    }

    async fn advance_and_commit(
        &self,
        transaction: &mut SqlTransaction<B>,
        position: Position,
    ) -> Result<()> {
        let connection = transaction.connection_below().await?;
        self.checkpoints
            .advance::<B>(connection, self.name(), position)
            .await?;
        B::commit(connection).await
    }

    async fn read_page(
        &self,
        transaction: &mut SqlTransaction<B>,
        from: Position,
        upto: Position,
    ) -> Result<Vec<Envelope<RawPayload>>> {
        let mut parameters = vec![
            Parameter::int(from.0),
            Parameter::int(upto.0),
            Parameter::int(self.page_size.into()),
        ];
        let types = self.subscription.aggregate_types().unwrap_or_default();
        parameters.extend(types.iter().copied().map(Parameter::text));
        let mut page = Vec::new();
        B::fetch(
            transaction.connection_below().await?,
            &self.page_sql,
            &parameters,
            None,
            |row| {
                page.push(read_event(row)?);
                Ok(())
            },
        )
        .await?;
        Ok(page)
    }

    /// Gives up on a transaction through no fault of the projection.
    async fn abandon(&mut self, connection: Connection<B>, error: Error) -> Error {
        if is_unavailable(&error) {
            queries::discard(connection, &self.shared.writers);
        } else {
            queries::rollback(connection).await;
        }
        self.doubt();
        error
    }

    /// Records the failure of a page, or narrows the page where it is known which event is to
    /// blame and there are others before it.
    async fn fail(&mut self, claimed: Checkpoint, failure: Failure) -> Result<Pass> {
        let Failure { error, page, .. } = failure;
        let position = match (&error, page) {
            (Error::Undecodable { position, .. }, Some((first, last)))
                if (first..=last).contains(position) =>
            {
                if *position > first {
                    self.bound = Some(Position(position.0 - 1));
                    return Ok(Pass::Narrowed);
                }
                Some(*position)
            }
            (_, page) => page.map(|(first, _)| first),
        };
        let attempts = claimed.failed_attempts.saturating_add(1);
        let delay = self.delays.after(attempts);
        let message = describe(&error);
        let recorded =
            checkpoint::record_failure(&self.shared, &claimed, position, &message, delay.is_none())
                .await?;
        if !recorded {
            self.doubt();
            return Ok(Pass::Elsewhere);
        }
        let at = position.map(|position| position.0);
        let subscription = self.name();
        if let Some(delay) = delay {
            tracing::warn!(
                subscription,
                position = at,
                attempts,
                ?delay,
                error = message,
                "a page failed and will be tried again"
            );
            return Ok(Pass::Failed(delay));
        }
        tracing::error!(
            subscription,
            position = at,
            attempts,
            error = message,
            "the subscription is halted"
        );
        self.note(claimed.position, true);
        Ok(Pass::Halted)
    }
}

impl<B: Backend> Drop for Worker<B> {
    fn drop(&mut self) {
        self.shared.advanced.forget(self.subscription.name());
    }
}

/// The statement that reads a page; its parameters are the checkpoint, the end, the page's size,
/// and one for each aggregate type.
fn page_sql(aggregate_types: Option<&[&str]>) -> String {
    let types = match aggregate_types {
        None => String::new(),
        Some([]) => " AND 1 = 0".to_owned(),
        Some(types) => format!(
            " AND aggregate_type IN ({})",
            list((4..4 + types.len()).map(|number| format!("${number}")))
        ),
    };
    format!(
        "SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position > $1 AND position <= $2{types} \
         ORDER BY position LIMIT $3"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_filtered_by_bound_types() {
        assert!(
            page_sql(Some(&["plan", "truck"]))
                .ends_with("AND aggregate_type IN ($4, $5) ORDER BY position LIMIT $3")
        );
        assert!(!page_sql(None).contains("aggregate_type IN"));
        assert!(page_sql(Some(&[])).contains("AND 1 = 0"));
    }
}
