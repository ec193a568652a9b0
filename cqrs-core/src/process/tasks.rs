//! Doing what is to be done: executing commands, and having deadlines pass.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::handler::Passed;
use super::manager::ProcessManager;
use super::rows::{ProcessTask, to_json};
use crate::context::TenantId;
use crate::error::{Error, Result, StoreErrorKind};
use crate::integrity::ContentHash;
use crate::mapping::{AsJson, Table, Value};
use crate::payload::canonical_json;
use crate::staging::{NewEvent, Operation, StagedWrite};
use crate::store::{Attempt, Outcome, Store};
use crate::unit_of_work::{CommitReceipt, UnitOfWork};

/// How often a command is tried at once where its error may pass.
const TRIES: u32 = 3;

/// What a store does for process managers. For authors of stores.
pub trait ProcessStore: Store {
    /// The time by which deadlines pass.
    fn now(&self) -> DateTime<Utc>;

    /// The tasks of a manager that are due at a time, those that are due for longest first, and of
    /// the commands of each instance the first alone; at most so many.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    fn due_tasks(
        &self,
        process: &str,
        at: DateTime<Utc>,
        most: u32,
    ) -> impl Future<Output = Result<Vec<ProcessTask>>> + Send;

    /// Writes down that a task has failed, unless somebody else has done or tried it meanwhile.
    ///
    /// # Errors
    ///
    /// As [`due_tasks`](Self::due_tasks).
    fn note_failure(
        &self,
        task: &ProcessTask,
        failure: TaskFailure,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// What becomes of a task that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// Why it has failed.
    pub error: String,
    /// When it is tried again; `None` where it is parked.
    pub again_at: Option<DateTime<Utc>>,
    /// When it has failed.
    pub at: DateTime<Utc>,
}

/// What came of a try.
#[derive(Debug)]
pub enum Tried {
    /// It is done.
    Done,
    /// Somebody else has it, or has done it.
    Taken,
}

/// Does a task, in a unit of work of its own that also takes it out of the store: so it is done
/// once.
///
/// # Errors
///
/// Why it could not be done; it is as before.
///
/// # Cancel safety
///
/// As [`UnitOfWork::commit`].
pub async fn try_task<S: ProcessStore, P: ProcessManager>(
    store: &S,
    manager: &P,
    task: &ProcessTask,
) -> Result<Tried> {
    let context = task.context()?;
    let attempt = TaskAttempt {
        manager,
        task,
        now: store.now(),
    };
    let receipt = crate::store::run(store, S::unit_of_work, &context, attempt).await?;
    Ok(match receipt.output() {
        true => Tried::Done,
        false => Tried::Taken,
    })
}

/// Writes down why a task has failed, and when it is tried again: after the delay of its number of
/// attempts. Where there is none, it is parked.
///
/// # Errors
///
/// As [`ProcessStore::note_failure`].
pub async fn record_failure<S: ProcessStore>(
    store: &S,
    task: &ProcessTask,
    error: &Error,
    delay: Option<Duration>,
) -> Result<()> {
    let now = store.now();
    let after = |delay| TimeDelta::from_std(delay).ok();
    let again_at = delay.map(|delay| {
        let at = after(delay).and_then(|delay| now.checked_add_signed(delay));
        at.unwrap_or(DateTime::<Utc>::MAX_UTC)
    });
    let (process, instance) = (task.process.as_str(), task.instance.as_str());
    tracing::warn!(process, instance, %error, is_parked = again_at.is_none(), "a command has failed");
    let failure = TaskFailure {
        error: error.to_string().replace('\0', "\u{fffd}"),
        again_at,
        at: now,
    };
    store.note_failure(task, failure).await
}

struct TaskAttempt<'t, P> {
    manager: &'t P,
    task: &'t ProcessTask,
    now: DateTime<Utc>,
}

impl<U: UnitOfWork, P: ProcessManager> Attempt<U> for TaskAttempt<'_, P> {
    type Output = bool;

    async fn attempt(&mut self, unit_of_work: &mut U) -> Result<Outcome<bool>> {
        let event = match &self.task.deadline {
            Some(deadline) => Some(passing::<P>(self.task, deadline, self.now)?),
            None => None,
        };
        if !unit_of_work.finish_task(self.task, event).await? {
            let receipt = CommitReceipt::new(Vec::new(), None);
            return Ok(Outcome::Done(receipt.with_output(false)));
        }
        if let Some(AsJson(command)) = &self.task.command {
            let command = serde_json::from_value(command.clone()).map_err(|cause| {
                let process = P::NAME;
                Error::other(format!("a command of {process} cannot be read: {cause}"))
            })?;
            self.manager.execute(command, unit_of_work).await?;
        }
        Ok(Outcome::Commit(true))
    }

    /// The commands of others wait behind it. So what may pass is soon left to the manager, which
    /// comes back to it; a conflict is over.
    fn is_retried(&self, error: &Error, attempt: u32) -> bool {
        error.is_retryable() && (!may_pass(error) || attempt < TRIES)
    }
}

/// Whether an error says that something is away or in use.
fn may_pass(error: &Error) -> bool {
    let Error::Store(error) = error else {
        return false;
    };
    let kinds = [StoreErrorKind::Unavailable, StoreErrorKind::Contention];
    kinds.contains(error.kind())
}

/// The type of the event that a deadline has passed, in the log.
pub const DEADLINE_PASSED: &str = "cqrs.deadline_passed";

/// The event that a deadline has passed: the first and only one of a stream of its own.
fn passing<P: ProcessManager>(
    task: &ProcessTask,
    deadline: &str,
    now: DateTime<Utc>,
) -> Result<StagedWrite> {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        Table::builder("cqrs_process_deadline")
            .sourced()
            .version()
            .key::<String>("id")
            .build()
    });
    let tenant = match task.scope.as_str() {
        "" => None,
        tenant => Some(TenantId::new(tenant)?),
    };
    let payload = passed_payload(task, deadline)?;
    let id = format!("{}/{}", task.instance_id, task.number);
    Ok(StagedWrite {
        aggregate_type: P::NAME,
        aggregate_id: id.clone(),
        table: &TABLE,
        operation: Operation::Insert,
        key: Value::Text(id.clone()),
        tenant,
        expected_version: 0,
        new_version: 1,
        row: vec![Value::Int(1), Value::Text(id)],
        children: Vec::new(),
        events: vec![NewEvent {
            event_id: Uuid::now_v7(),
            aggregate_version: 1,
            event_type: DEADLINE_PASSED,
            schema_version: 1,
            schema_id: None,
            content_hash: ContentHash::of(&payload),
            payload,
            occurred_at: now,
        }],
        snapshot: None,
    })
}

pub(super) fn passed_payload(task: &ProcessTask, deadline: &str) -> Result<String> {
    let passed = Passed {
        instance: task.instance.clone(),
        deadline: deadline.to_owned(),
        instance_id: task.instance_id,
        number: task.number,
    };
    Ok(canonical_json(&to_json(&task.process, &passed)?))
}
