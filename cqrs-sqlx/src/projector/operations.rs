//! What operators do to subscriptions. Each operation leaves a record of who did it and when, in its
//! own transaction.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::RowSource;
use cqrs_core::process::ProcessTask;
use cqrs_core::{
    Envelope, Error, Position, RawPayload, RequestContext, Result, StoreErrorKind, Subscription,
};
use tracing::Instrument;
use uuid::Uuid;

use super::checkpoint::{self, read, some};
use super::dead_letters::{self, Aggregate};
use super::letter::{self, DeadLetter};
use super::wake::Known;
use super::{building, processes, queries, records, register, segments};
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::retention;
use crate::select::Select;
use crate::store::Shared;

/// What `cqrs_operation` holds, in the order in which it is read.
pub(crate) const COLUMNS: &str = "operation, subscription, detail, actor, correlation_id, done_at";

/// What operators do to subscriptions. From [`SqlStore::operations`](crate::SqlStore::operations).
///
/// # Transaction
///
/// Each operation is one transaction, in which it waits for pages that are under way. Its record,
/// with the actor and the correlation id of the context, is part of it.
///
/// # Errors
///
/// All methods return a [`Usage`](StoreErrorKind::Usage) error where there is no such subscription,
/// and [`Store`](Error::Store) where the store fails.
///
/// # Cancel safety
///
/// When a future is dropped, the operation was done with its record, or not at all.
pub struct Operations<B: Backend> {
    pub(super) shared: Arc<Shared<B>>,
    pub(super) context: RequestContext,
    /// Whether events that have left the log may be missing from what is folded from it.
    pub(super) despite_gaps: bool,
}

/// The record of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationRecord {
    /// What was done: the name of the method.
    pub operation: String,
    /// To which subscription; empty where it was the log.
    pub subscription: String,
    /// To what of it.
    pub detail: String,
    /// Who did it.
    pub actor: Option<String>,
    /// The correlation id of the request.
    pub correlation_id: Uuid,
    /// When, by the clock of the database.
    pub done_at: DateTime<Utc>,
}

/// What an operation does in its transaction.
enum Action<'a> {
    Pause,
    Resume,
    SetSegments(u32),
    ReplayAll,
    Replay(Aggregate),
    DiscardEvent(Position),
    Discard(&'a Aggregate),
    Remove,
}

impl<B: Backend> Operations<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, context: &RequestContext) -> Result<Self> {
        if context.scope().tenant().is_some() {
            return Err(Error::store(
                StoreErrorKind::Usage,
                "operations on subscriptions cross tenants: they take the scope of the system",
            ));
        }
        Ok(Self {
            shared,
            context: context.clone(),
            despite_gaps: false,
        })
    }

    /// Lets what follows fold the log from a place behind which events have
    /// [left](crate::SqlStore::remove_events) it: what these have done is not in the rows then.
    #[must_use]
    pub fn despite_gaps(mut self) -> Self {
        self.despite_gaps = true;
        self
    }

    /// Refuses to fold the log from a place behind which events have left it.
    pub(super) async fn refuse_gaps<T>(
        &self,
        connection: &mut B::Connection,
        subscription: &Subscription<T>,
        start: Position,
    ) -> Result<()> {
        if self.despite_gaps {
            return Ok(());
        }
        retention::hold::<B>(connection).await?;
        let gap = retention::gap::<B>(connection, subscription.filter(), start).await?;
        gap.map_or(Ok(()), |gap| Err(gap.refuse(subscription.name(), start)))
    }

    /// Pauses a subscription in all processes: once this returns, no page of it is applied and
    /// nothing of it is replayed, until it is [resumed](Self::resume); also where it is halted, and
    /// is [reset](Self::reset) or [restored](Self::restore) meanwhile. Why a segment is halted is
    /// still in its [state](crate::SubscriptionStatus::state). Of a process manager no command is
    /// begun any more; one that is under way is finished.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn pause(&self, subscription: &str) -> Result<()> {
        self.run(subscription, &Action::Pause).await.map(drop)
    }

    /// Lets a paused or halted subscription go on: it tries the event that halted it again. Delays
    /// after failures are cut short. Does nothing to one that is active.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn resume(&self, subscription: &str) -> Result<()> {
        self.run(subscription, &Action::Resume).await.map(drop)
    }

    /// Changes into how many segments a subscription is split, while it runs: no event is lost,
    /// applied twice, or out of its order.
    ///
    /// Returns when that is asked for. The projectors first bring all segments to one position;
    /// [`SubscriptionStatus::segments`](crate::SubscriptionStatus::segments) shows when it is done.
    /// A halted segment has to be resumed before.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` where a handler of the subscription is not splittable.
    pub async fn set_segments(&self, subscription: &str, segments: u32) -> Result<()> {
        let action = Action::SetSegments(segments.max(1));
        self.run(subscription, &action).await.map(drop)
    }

    /// Has all parked events replayed by the projectors that run the subscription, those of each
    /// aggregate in order; how many aggregates there are. An event that fails again stays parked,
    /// and those of its aggregate behind it.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn replay_all(&self, subscription: &str) -> Result<u64> {
        self.run(subscription, &Action::ReplayAll).await
    }

    /// As [`replay_all`](Self::replay_all), for the parked events of one aggregate.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn replay(
        &self,
        subscription: &str,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<bool> {
        let aggregate = (aggregate_type.to_owned(), aggregate_id.to_owned());
        let replayed = self.run(subscription, &Action::Replay(aggregate)).await?;
        Ok(replayed > 0)
    }

    /// Gives up one dead letter: a parked event will never be applied, of a skipped one the record
    /// is removed. `false` where there is none at this position.
    ///
    /// Where it is the first parked event of its aggregate, those behind it are replayed.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn discard_event(&self, subscription: &str, position: Position) -> Result<bool> {
        let action = Action::DiscardEvent(position);
        Ok(self.run(subscription, &action).await? > 0)
    }

    /// Gives up all parked events of an aggregate; how many they were. Later events of it are
    /// applied as they come.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors).
    pub async fn discard(
        &self,
        subscription: &str,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<u64> {
        let aggregate = (aggregate_type.to_owned(), aggregate_id.to_owned());
        self.run(subscription, &Action::Discard(&aggregate)).await
    }

    /// Removes a subscription that is gone for good, or has another name now: its checkpoints and
    /// its dead letters. So it keeps no events any more, and is in no report.
    ///
    /// Stop the projectors that run it before: they would register it anew, and start over. Rows
    /// that its handlers have written stay.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` while its rows are
    /// [built anew](Self::rebuild).
    pub async fn remove(&self, subscription: &str) -> Result<()> {
        self.run(subscription, &Action::Remove).await.map(drop)
    }

    /// The dead letters of a subscription after a position, in the order of the log.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn dead_letters(
        &self,
        subscription: &str,
        after: Position,
        limit: u32,
    ) -> Result<Vec<DeadLetter>> {
        letter::list(&self.shared, subscription, after, limit).await
    }

    /// The event of a dead letter, with its payload as the log holds it: sealed
    /// values in it stay sealed. `None` where there is no such letter, or
    /// retention has removed the event.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn dead_letter_event(
        &self,
        subscription: &str,
        position: Position,
    ) -> Result<Option<Envelope<RawPayload>>> {
        let before = Position(position.0.saturating_sub(1));
        let first = letter::list(&self.shared, subscription, before, 1).await?;
        if first.first().map(|letter| letter.position) != Some(position) {
            return Ok(None);
        }
        let events = reads::events(&self.shared, self.context.scope(), before, 1)
            .instrument(self.context.span("dead letter"))
            .await?;
        let event = events.into_iter().next();
        Ok(event.filter(|event| event.position() == position))
    }

    /// The commands of a [process manager](cqrs_core::process::ProcessManager) that are parked, those
    /// of each instance in order; at most so many.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn parked_commands(&self, process: &str, limit: u32) -> Result<Vec<ProcessTask>> {
        processes::parked(&self.shared, process, limit).await
    }

    /// Has a command that is parked executed again, and those of its instance after it. `false`
    /// where it is not there any more.
    ///
    /// # Errors
    ///
    /// As [`parked_commands`](Self::parked_commands).
    pub async fn retry_command(&self, command: &ProcessTask) -> Result<bool> {
        self.settle("retry_command", command, processes::retry::<B>)
            .await
    }

    /// Gives up a command that is parked: those of its instance behind it go on. `false` where it
    /// is not there any more.
    ///
    /// # Errors
    ///
    /// As [`parked_commands`](Self::parked_commands).
    pub async fn discard_command(&self, command: &ProcessTask) -> Result<bool> {
        self.settle("discard_command", command, processes::discard::<B>)
            .await
    }

    async fn settle(
        &self,
        operation: &'static str,
        command: &ProcessTask,
        settle: impl AsyncFnOnce(&mut B::Connection, &ProcessTask) -> Result<bool>,
    ) -> Result<bool> {
        let mut connection = queries::begin(&self.shared).await?;
        let settled = async {
            let settled = settle(connection.get(), command).await?;
            if settled {
                let detail = format!("{} {}", command.instance, command.number);
                let record = (operation, detail);
                self.record(connection.get(), &command.process, record)
                    .await?;
            }
            Ok(settled)
        };
        let settled = settled.await;
        let settled = queries::end(connection, settled).await?;
        self.shared.operated.tell().await;
        Ok(settled)
    }

    /// The records of the last operations, the latest first.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn records(&self, limit: u32) -> Result<Vec<OperationRecord>> {
        let select = Select {
            sql: format!("SELECT {COLUMNS} FROM cqrs_operation ORDER BY id DESC LIMIT $1").into(),
            parameters: vec![Parameter::int(limit.into())],
        };
        reads::rows(Place::Alone(&self.shared), &select, None, |row: &B::Row| {
            read(row, |row| {
                Ok(OperationRecord {
                    operation: some(row.read_text(0)?)?.to_owned(),
                    subscription: some(row.read_text(1)?)?.to_owned(),
                    detail: some(row.read_text(2)?)?.to_owned(),
                    actor: row.read_text(3)?.map(str::to_owned),
                    correlation_id: some(row.read_uuid(4)?)?,
                    done_at: some(row.read_timestamp(5)?)?,
                })
            })
        })
        .await
    }

    async fn run(&self, subscription: &str, action: &Action<'_>) -> Result<u64> {
        let mut connection = queries::begin(&self.shared).await?;
        let done = self.run_in(connection.get(), subscription, action).await;
        // Given back before the next question: there may be no other.
        let (done, position) = queries::end(connection, done).await?;
        if matches!(action, Action::Remove) {
            self.shared.advanced.forget(subscription);
        }
        let goes_on = matches!(action, Action::Resume).then_some(position);
        self.wake(subscription, goes_on).await;
        Ok(done)
    }

    /// Does it; what was done, and where the subscription stands.
    async fn run_in(
        &self,
        connection: &mut B::Connection,
        name: &str,
        action: &Action<'_>,
    ) -> Result<(u64, Position)> {
        let checkpoints = checkpoint::lock_all::<B>(connection, name).await?;
        let Some(least) = checkpoint::least(checkpoints) else {
            return Err(Error::unknown_subscription(name));
        };
        if matches!(action, Action::Remove) {
            building::refuse_name(name)?;
            building::refuse_while_rebuilt::<B>(connection, name).await?;
        }
        let done = match action {
            Action::Pause => checkpoint::pause::<B>(connection, name).await?,
            Action::Resume => checkpoint::reactivate::<B>(connection, name).await?,
            Action::SetSegments(segments) => {
                segments::change::<B>(connection, name, *segments).await?;
                1
            }
            Action::ReplayAll => dead_letters::make_all_due::<B>(connection, name).await?,
            Action::Replay(aggregate) => {
                dead_letters::make_due_now::<B>(connection, name, aggregate).await?
            }
            Action::DiscardEvent(position) => {
                dead_letters::discard::<B>(connection, name, *position).await?
            }
            Action::Discard(aggregate) => {
                let end = Position(i64::MAX);
                dead_letters::remove::<B>(connection, name, aggregate, end).await?
            }
            Action::Remove => register::remove::<B>(connection, name).await?,
        };
        if !matches!(
            action,
            Action::Pause | Action::Resume | Action::SetSegments(_) | Action::Remove
        ) {
            for checkpoint in checkpoint::lock_all::<B>(connection, name).await? {
                dead_letters::note_next::<B>(connection, name, checkpoint.segment).await?;
            }
        }
        self.record(connection, name, action.describe()).await?;
        Ok((done, least.position))
    }

    pub(super) async fn record(
        &self,
        connection: &mut B::Connection,
        name: &str,
        record: (&str, String),
    ) -> Result<()> {
        records::add::<B>(connection, &self.context, name, record).await
    }

    /// Tells the projectors of what is committed, and those who wait in this process that a
    /// subscription goes on from here. It asks nobody for anything: what is done has not failed.
    pub(super) async fn wake(&self, name: &str, goes_on: Option<Position>) {
        if let Some(position) = goes_on {
            let known = Known {
                position,
                halted: false,
            };
            self.shared.advanced.correct(name, known);
        }
        self.shared.operated.tell().await;
    }
}

impl Action<'_> {
    fn describe(&self) -> (&'static str, String) {
        let of = |(aggregate_type, id): &Aggregate| format!("{aggregate_type} {id}");
        match self {
            Self::Pause => ("pause", String::new()),
            Self::Resume => ("resume", String::new()),
            Self::SetSegments(segments) => ("set_segments", segments.to_string()),
            Self::ReplayAll => ("replay_all", String::new()),
            Self::Replay(aggregate) => ("replay", of(aggregate)),
            Self::DiscardEvent(position) => ("discard_event", position.to_string()),
            Self::Discard(aggregate) => ("discard", of(aggregate)),
            Self::Remove => ("remove", String::new()),
        }
    }
}

impl<B: Backend> fmt::Debug for Operations<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
