//! Process managers: executing their commands, and having their deadlines pass.
//!
//! Instances, commands and deadlines are written by a subscription as any other. What is to be done
//! is a row; who does it deletes the row in the same transaction. So it is done once, however many
//! processes try, and whenever one of them dies.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::__private::catch_panic;
use cqrs_core::mapping::{ColumnType, Entity, RowSource as _, Value};
use cqrs_core::process::{
    ProcessManager, ProcessStore, ProcessTask, TaskFailure, Tried, record_failure, try_task,
};
use cqrs_core::{BoxFuture, Error, Result, StoreErrorKind, TenantScope};
use futures_util::future::select;

use super::checkpoint::{read, some};
use super::errors::is_transient;
use super::handle::Stopping;
use super::pace::{Backoff, Polling};
use super::queries;
use super::worker::Rules;
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::{Shared, SqlStore};

/// How many tasks are looked for at once.
const BATCH: u32 = 32;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Whoever looks for what is due some time looks this far, in days.
const FAR: i64 = 365 * 1000;

/// The columns of the instances.
pub(crate) const INSTANCE_COLUMNS: &str = "process, scope, instance, instance_id, state, deadlines, \
     tasks, started_at, completed_at";
/// The columns of what is to be done for them.
pub(crate) const TASK_COLUMNS: &str = "instance_id, number, process, scope, instance, deadline, \
     command, due_at, attempts, error, parked_at, correlation_id, causation_id, trace";

/// A manager without its type.
pub(super) trait Running<B: Backend>: Send + Sync {
    /// The name of its subscription.
    fn name(&self) -> &'static str;

    /// Tries everything that is due, until it is told to stop.
    fn run<'r>(
        &'r self,
        store: &'r SqlStore<B>,
        rules: &'r Rules,
        stopping: &'r Stopping,
    ) -> BoxFuture<'r, Result<Ran>>;
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Ran {
    /// How much was done.
    pub(super) done: u64,
    /// What is next: when, and whether it has failed task.
    pub(super) next: Option<(DateTime<Utc>, bool)>,
}

/// What came of a task.
#[derive(PartialEq, Eq)]
enum Came {
    Done,
    /// It is due later, or parked, and makes room for what is behind it.
    Failed,
    /// Others have it.
    Taken,
}

pub(super) struct Manager<P>(pub(super) Arc<P>);

impl<B: Backend, P: ProcessManager> Running<B> for Manager<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn run<'r>(
        &'r self,
        store: &'r SqlStore<B>,
        rules: &'r Rules,
        stopping: &'r Stopping,
    ) -> BoxFuture<'r, Result<Ran>> {
        Box::pin(async move {
            let (mut done, mut has_moved) = (0, false);
            let (mut behind, mut passing) = (None, None);
            loop {
                let now = store.now();
                let mut due = due(store, P::NAME, now, behind.as_ref(), BATCH).await?;
                for task in &due {
                    if stopping.is_set() {
                        return Ok(Ran { done, next: None });
                    }
                    match self.try_one(store, rules, task).await {
                        Ok(came) => {
                            done += u64::from(came == Came::Done);
                            has_moved |= came != Came::Taken;
                        }
                        // Other instances need other locks, or nothing of what is away.
                        Err(error) if is_transient(&error) => passing = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                if passing.is_some() && due.len() >= BATCH as usize {
                    // What is still there holds up nothing behind it.
                    behind = due.pop();
                    continue;
                }
                if !has_moved {
                    if let Some(error) = passing {
                        return Err(error);
                    }
                    let far = store.now() + TimeDelta::days(FAR);
                    let next = store.due_tasks(P::NAME, far, 1).await?.pop();
                    let next = next.map(|task| (task.due_at, task.attempts > 0));
                    return Ok(Ran { done, next });
                }
                if let Some(error) = passing.take() {
                    let process = P::NAME;
                    tracing::warn!(process, %error, "commands wait for what may pass");
                }
                (has_moved, behind) = (false, None);
            }
        })
    }
}

impl<P: ProcessManager> Manager<P> {
    /// Tries a task, and records that it has failed.
    async fn try_one<B: Backend>(
        &self,
        store: &SqlStore<B>,
        rules: &Rules,
        task: &ProcessTask,
    ) -> Result<Came> {
        let trying = catch_panic(try_task(store, self.0.as_ref(), task));
        let (tried, is_interrupted) = match tokio::time::timeout(rules.deadline, trying).await {
            Ok(Ok(tried)) => (tried, false),
            Ok(Err(panic)) => (Err(panic), true),
            Err(_) => {
                let message = format!("the command took longer than {:?}", rules.deadline);
                (Err(Error::store(StoreErrorKind::TimedOut, message)), true)
            }
        };
        let worker = store.shared().under_way.ended(task);
        if let Some(worker) = worker.filter(|_| is_interrupted) {
            queries::end_what_was_left(store.shared(), P::NAME, worker).await;
        }
        match tried {
            Ok(Tried::Done) => Ok(Came::Done),
            Ok(Tried::Taken) => Ok(Came::Taken),
            Err(error) if is_transient(&error) => Err(error),
            Err(error) => {
                let failed = u32::try_from(task.attempts).unwrap_or(0) + 1;
                let delay = rules.delays.after(failed);
                // Whoever could not be ended, or has taken the task meanwhile, has it locked.
                let patience = store.shared().writers.patience();
                let recorded = record_failure(store, task, &error, delay);
                match tokio::time::timeout(patience, recorded).await {
                    Ok(recorded) => recorded.map(|()| Came::Failed),
                    Err(_) => Ok(Came::Taken),
                }
            }
        }
    }
}

/// Does what is due until it is told to stop.
pub(super) async fn run<B: Backend>(
    store: SqlStore<B>,
    process: Arc<dyn Running<B>>,
    rules: Rules,
    polling: Polling,
    mut stopping: Stopping,
) {
    let mut backoff = Backoff::new(FIRST_BACKOFF, LONGEST_BACKOFF);
    // Commands come of events of its own alone.
    let mut applied = store.shared().advanced.follow(process.name());
    let mut resumed = store.shared().operated.subscribe();
    while !stopping.is_set() {
        applied.mark_unchanged();
        resumed.mark_unchanged();
        let ran = async {
            let Ran { next, .. } = process.run(&store, &rules, &stopping).await?;
            Ok(next.map(|(at, _)| at.signed_duration_since(store.now())))
        };
        // The clock is not ours.
        let pause = match catch_panic(ran).await.and_then(|ran| ran) {
            Ok(left) => {
                backoff.reset();
                let left = left.map(|left| left.to_std().unwrap_or(Duration::ZERO));
                // What is due and was not done, others have.
                let left = left.map(|left| left.max(polling.shortest));
                let longest = polling.until_doubt();
                left.unwrap_or(longest).min(longest)
            }
            Err(_) if store.shared().writers.is_closed() => return,
            Err(error) => {
                let pause = backoff.next();
                tracing::warn!(process = process.name(), %error, ?pause, "commands wait");
                pause
            }
        };
        let (applies, told) = (pin!(applied.changed()), pin!(resumed.changed()));
        let waited = tokio::time::timeout(pause, select(applies, told));
        if stopping.or(waited).await.is_none() {
            return;
        }
    }
}

/// Does everything that is due, and waits for what is to be tried again, unless the clock of the store
/// stands still; how much that was.
pub(super) async fn run_until_idle<B: Backend>(
    store: &SqlStore<B>,
    processes: &[Arc<dyn Running<B>>],
    rules: &Rules,
) -> Result<u64> {
    let mut all = 0;
    let stopping = Stopping::never();
    for process in processes {
        let mut waited = None;
        loop {
            let Ran { done, next } = process.run(store, rules, &stopping).await?;
            all += done;
            match next {
                Some((at, true)) if waited != Some(at) => {
                    let left = at.signed_duration_since(store.now()).to_std();
                    tokio::time::sleep(left.unwrap_or(Duration::ZERO)).await;
                    waited = Some(at);
                }
                _ => break,
            }
        }
    }
    Ok(all)
}

impl<B: Backend> ProcessStore for SqlStore<B> {
    fn now(&self) -> DateTime<Utc> {
        self.shared().clock.now()
    }

    async fn due_tasks(
        &self,
        process: &str,
        at: DateTime<Utc>,
        most: u32,
    ) -> Result<Vec<ProcessTask>> {
        due(self, process, at, None, most).await
    }

    async fn note_failure(&self, task: &ProcessTask, failure: TaskFailure) -> Result<()> {
        let after = task.failed(failure);
        let sql = "UPDATE cqrs_process_task SET attempts = $1, error = $2, due_at = $3, \
             parked_at = $4 WHERE instance_id = $5 AND number = $6 AND attempts = $7";
        let parked = after.parked_at.map_or(Value::Null, Value::Timestamp);
        let int = |value: i32| Parameter::new(ColumnType::Int32, Value::Int(value.into()));
        let parameters = [
            int(after.attempts),
            Parameter::text(after.error.unwrap_or_default()),
            Parameter::new(ColumnType::Timestamp, Value::Timestamp(after.due_at)),
            Parameter::new(ColumnType::Timestamp, parked),
            Parameter::new(ColumnType::Uuid, Value::Uuid(task.instance_id)),
            Parameter::int(task.number),
            int(task.attempts),
        ];
        queries::execute(self.shared(), &sql.into(), &parameters)
            .await
            .map(drop)
    }
}

/// What is due, in order; behind a task, where one is given.
async fn due<B: Backend>(
    store: &SqlStore<B>,
    process: &str,
    at: DateTime<Utc>,
    behind: Option<&ProcessTask>,
    most: u32,
) -> Result<Vec<ProcessTask>> {
    let timestamp = |at| Parameter::new(ColumnType::Timestamp, Value::Timestamp(at));
    let mut parameters = vec![
        Parameter::text(process),
        timestamp(at),
        Parameter::int(most.into()),
    ];
    let (name, condition) = match behind {
        None => ("due", ""),
        Some(task) => {
            parameters.push(timestamp(task.due_at));
            parameters.extend(key(task));
            let condition = "AND (due_at, instance_id, number) > ($4, $5, $6)";
            ("due behind", condition)
        }
    };
    let shared = store.shared();
    let sql = || due_sql(condition);
    let sql = shared.statements.get(ProcessTask::table(), name, sql);
    let place = Place::Confined(shared, &TenantScope::System);
    reads::entities(place, &Select { sql, parameters }).await
}

/// What is due: of the commands of an instance the first alone. Nothing while somebody has paused
/// the subscription.
fn due_sql(condition: &str) -> String {
    format!(
        "SELECT {TASK_COLUMNS} FROM cqrs_process_task AS t \
         WHERE process = $1 AND due_at <= $2 AND parked_at IS NULL {condition} \
         AND (deadline IS NOT NULL OR NOT EXISTS (SELECT 1 FROM cqrs_process_task AS o \
         WHERE o.instance_id = t.instance_id AND o.deadline IS NULL AND o.number < t.number)) \
         AND NOT EXISTS (SELECT 1 FROM cqrs_segment AS s \
         WHERE s.subscription = $1 AND s.status = 'paused') \
         ORDER BY due_at, instance_id, number LIMIT $3"
    )
}

/// Takes a task out in an open transaction; whether it was there, nobody else is about to, and the
/// subscription goes on.
pub(crate) async fn take<B: Backend>(
    connection: &mut B::Connection,
    task: &ProcessTask,
) -> Result<bool> {
    let lock = B::DIALECT.claim;
    let sql = format!(
        "DELETE FROM cqrs_process_task WHERE instance_id = $1 AND number = \
         (SELECT number FROM cqrs_process_task WHERE instance_id = $1 AND number = $2 \
         AND attempts = $3 AND parked_at IS NULL AND NOT EXISTS (SELECT 1 FROM cqrs_segment AS s \
         WHERE s.subscription = cqrs_process_task.process AND s.status = 'paused'){lock})"
    );
    let parameters = [
        Parameter::new(ColumnType::Uuid, Value::Uuid(task.instance_id)),
        Parameter::int(task.number),
        Parameter::new(ColumnType::Int32, Value::Int(task.attempts.into())),
    ];
    Ok(B::execute(connection, &sql.into(), &parameters).await? > 0)
}

/// The commands of a manager that are parked.
pub(super) async fn parked<B: Backend>(
    shared: &Arc<Shared<B>>,
    process: &str,
    limit: u32,
) -> Result<Vec<ProcessTask>> {
    let sql = format!(
        "SELECT {TASK_COLUMNS} FROM cqrs_process_task WHERE process = $1 AND parked_at IS NOT NULL \
         ORDER BY instance_id, number LIMIT $2"
    );
    let parameters = vec![Parameter::text(process), Parameter::int(limit.into())];
    let select = Select {
        sql: sql.into(),
        parameters,
    };
    reads::entities(Place::Confined(shared, &TenantScope::System), &select).await
}

/// How many parked commands each manager has, and since when.
pub(super) async fn count_parked<B: Backend>(
    shared: &Arc<Shared<B>>,
) -> Result<Vec<(String, u64, DateTime<Utc>)>> {
    let select = Select {
        sql: "SELECT process, count(*), min(parked_at) FROM cqrs_process_task \
              WHERE parked_at IS NOT NULL GROUP BY process"
            .into(),
        parameters: Vec::new(),
    };
    let place = Place::Confined(shared, &TenantScope::System);
    reads::rows(place, &select, None, |row: &B::Row| {
        read(row, |row| {
            let count = u64::try_from(some(row.read_i64(1)?)?).unwrap_or(0);
            let process = some(row.read_text(0)?)?.to_owned();
            Ok((process, count, some(row.read_timestamp(2)?)?))
        })
    })
    .await
}

/// Has a command tried again; whether it is there.
pub(super) async fn retry<B: Backend>(
    connection: &mut B::Connection,
    task: &ProcessTask,
) -> Result<bool> {
    let sql = "UPDATE cqrs_process_task SET parked_at = NULL, attempts = 0 \
         WHERE instance_id = $1 AND number = $2 AND parked_at IS NOT NULL";
    Ok(B::execute(connection, &sql.into(), &key(task)).await? > 0)
}

/// Gives up a command; whether it was there.
pub(super) async fn discard<B: Backend>(
    connection: &mut B::Connection,
    task: &ProcessTask,
) -> Result<bool> {
    let sql = "DELETE FROM cqrs_process_task \
         WHERE instance_id = $1 AND number = $2 AND parked_at IS NOT NULL";
    Ok(B::execute(connection, &sql.into(), &key(task)).await? > 0)
}

fn key(task: &ProcessTask) -> [Parameter; 2] {
    [
        Parameter::new(ColumnType::Uuid, Value::Uuid(task.instance_id)),
        Parameter::int(task.number),
    ]
}
