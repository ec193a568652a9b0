//! Which server process works on the command of which task.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cqrs_core::process::ProcessTask;
use uuid::Uuid;

use crate::backend::Process;

/// The tasks that this process is at. A command that is interrupted may go on in the database, with the
/// lock of its task: so it is known who has to end before its failure can be recorded.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<HashMap<(Uuid, i64), Process>>);

impl UnderWay {
    /// The process works on the task.
    pub(crate) fn begun(&self, task: &ProcessTask, process: Process) {
        self.tasks().insert(key(task), process);
    }

    /// Nobody here works on the task any more; who did.
    pub(super) fn ended(&self, task: &ProcessTask) -> Option<Process> {
        self.tasks().remove(&key(task))
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<(Uuid, i64), Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(task: &ProcessTask) -> (Uuid, i64) {
    (task.instance_id, task.number)
}
