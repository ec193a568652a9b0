//! Process managers in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::select;
use super::state::State;
use super::store::InMemoryStore;
use super::transaction::place;
use crate::error::{Error, Result, StoreErrorKind};
use crate::mapping::{Entity, ValueRow};
use crate::panics::catch_panic;
use crate::process::{
    ProcessManager, ProcessStore, ProcessTask, TaskFailure, TaskState, Tried, record_failure,
    try_task,
};
use crate::projection::RowAddress;
use crate::store::BoxFuture;

const TRIES: i32 = 3;
const BATCH: u32 = 100;

/// The managers that a store runs.
#[derive(Clone, Default)]
pub(super) struct Processes(Vec<Arc<dyn Running>>);

impl Processes {
    pub(super) fn add<P: ProcessManager>(&mut self, manager: Arc<P>) {
        self.0.push(Arc::new(Manager(manager)));
    }

    /// Does everything that is due; how much that was.
    pub(super) async fn run(self, store: &InMemoryStore) -> Result<u64> {
        let mut done = 0;
        for running in self.0 {
            done += running.run(store).await?;
        }
        Ok(done)
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Processes").field(&self.0.len()).finish()
    }
}

trait Running: Send + Sync {
    fn run<'r>(&'r self, store: &'r InMemoryStore) -> BoxFuture<'r, Result<u64>>;
}

struct Manager<P>(Arc<P>);

impl<P: ProcessManager> Running for Manager<P> {
    /// A command that fails is tried three times at once, and then parked.
    fn run<'r>(&'r self, store: &'r InMemoryStore) -> BoxFuture<'r, Result<u64>> {
        Box::pin(async move {
            let mut done = 0;
            loop {
                let due = store.due_tasks(P::NAME, store.now(), BATCH).await?;
                if due.is_empty() {
                    return Ok(done);
                }
                for task in due {
                    let tried = catch_panic(try_task(store, self.0.as_ref(), &task)).await;
                    match tried.and_then(|tried| tried) {
                        Ok(Tried::Done) => done += 1,
                        Ok(Tried::Taken) => {}
                        Err(error) => {
                            let again = (task.attempts + 1 < TRIES).then_some(Duration::ZERO);
                            record_failure(store, &task, &error, again).await?;
                        }
                    }
                }
            }
        })
    }
}

impl ProcessStore for InMemoryStore {
    fn now(&self) -> DateTime<Utc> {
        self.shared().clock.now()
    }

    async fn due_tasks(
        &self,
        process: &str,
        at: DateTime<Utc>,
        most: u32,
    ) -> Result<Vec<ProcessTask>> {
        let state = self.shared().lock();
        if state.is_paused(process) {
            return Ok(Vec::new());
        }
        let rows = state.read_tables.get(ProcessTask::table().name());
        let rows = rows.into_iter().flat_map(|rows| rows.values());
        let tasks = rows.map(|row| select::read::<ProcessTask>(row));
        let tasks = tasks.collect::<Result<Vec<_>>>()?;
        let is_first = |task: &ProcessTask| {
            task.deadline.is_some()
                || !tasks.iter().any(|other| {
                    other.instance_id == task.instance_id
                        && other.deadline.is_none()
                        && other.number < task.number
                })
        };
        let is_due = |task: &&ProcessTask| {
            task.process == process && task.due_at <= at && task.state() == TaskState::Waiting
        };
        let due = tasks.iter().filter(is_due).filter(|task| is_first(task));
        let mut due: Vec<ProcessTask> = due.cloned().collect();
        due.sort_by_key(|task| (task.due_at, task.instance_id, task.number));
        due.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(due)
    }

    async fn note_failure(&self, task: &ProcessTask, failure: TaskFailure) -> Result<()> {
        let failed = task.failed(failure);
        let noted = self.shared().lock().settle_task(task, Some(failed));
        noted.map(drop)
    }
}

impl State {
    /// Whether a task is still to be done, and nobody has tried it since.
    pub(super) fn holds_task(&self, task: &ProcessTask) -> Result<bool> {
        let Some(row) = self.task(task)? else {
            return Ok(false);
        };
        let stored: ProcessTask = select::read(row)?;
        Ok(stored.attempts == task.attempts && stored.parked_at == task.parked_at)
    }

    fn task(&self, task: &ProcessTask) -> Result<Option<&ValueRow>> {
        let address = RowAddress::of::<ProcessTask>(None, &(task.instance_id, task.number))?;
        let rows = self.read_tables.get(ProcessTask::table().name());
        Ok(rows.and_then(|rows| rows.get(&place(&address)).map(AsRef::as_ref)))
    }

    pub(super) fn parked_tasks(&self, process: &str) -> Result<Vec<ProcessTask>> {
        let rows = self.read_tables.get(ProcessTask::table().name());
        let rows = rows.into_iter().flat_map(|rows| rows.values());
        let tasks = rows.map(|row| select::read::<ProcessTask>(row));
        let mut tasks = tasks.collect::<Result<Vec<_>>>()?;
        tasks.retain(|task| task.process == process && task.state() == TaskState::Parked);
        Ok(tasks)
    }

    /// Puts another in the place of a task, or none; whether it is still there.
    pub(super) fn settle_task(
        &mut self,
        task: &ProcessTask,
        other: Option<ProcessTask>,
    ) -> Result<bool> {
        if !self.holds_task(task)? {
            return Ok(false);
        }
        let address = RowAddress::of::<ProcessTask>(None, &(task.instance_id, task.number))?;
        let rows = self
            .read_tables
            .entry(ProcessTask::table().name())
            .or_default();
        match other {
            Some(other) => {
                let values = ValueRow::new(other.to_row()?);
                rows.insert(place(&address), Arc::new(values));
            }
            None => {
                rows.remove(&place(&address));
            }
        }
        Ok(true)
    }

    /// Takes tasks out, all or none.
    pub(super) fn take_tasks(&mut self, tasks: &[ProcessTask]) -> Result<()> {
        for task in tasks {
            if !self.holds_task(task)? {
                return Err(Error::store(
                    StoreErrorKind::Contention,
                    format!("a task of {} was done by another", task.process),
                ));
            }
        }
        for task in tasks {
            self.settle_task(task, None)?;
        }
        Ok(())
    }
}
