//! Which server process works on the command of which task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cqrs_core::process::ProcessTask;
use uuid::Uuid;

use crate::backend::{Backend, Process};
use crate::connections::Connection;

/// The tasks that this process is at. A command that is interrupted may go on in the database, with the
/// lock of its task: so it is known who has to end before its failure can be recorded.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<HashMap<(Uuid, i64), Work>>);

/// Who works on a task, and whether the connection was left in the middle of it. One that was given back
/// works for others by now.
#[derive(Debug)]
struct Work {
    process: Process,
    is_left: Arc<AtomicBool>,
}

impl UnderWay {
    /// The connection works on the task, which it has taken.
    pub(crate) fn begun<B: Backend>(&self, task: &ProcessTask, connection: &mut Connection<B>) {
        let work = Work {
            process: B::process(connection.get()),
            is_left: connection.watch(),
        };
        self.tasks().insert(key(task), work);
    }

    /// The caller does not work on the task any more; who may still do for it in the database. What another
    /// one of this process is at, which has taken the task since, is not touched.
    pub(super) fn ended(&self, task: &ProcessTask) -> Option<Process> {
        let mut tasks = self.tasks();
        let is_in_use = |work: &Work| Arc::strong_count(&work.is_left) > 1;
        if tasks.get(&key(task)).is_none_or(is_in_use) {
            return None;
        }
        let work = tasks.remove(&key(task))?;
        let is_left = work.is_left.load(Ordering::Acquire);
        is_left.then_some(work.process)
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<(Uuid, i64), Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(task: &ProcessTask) -> (Uuid, i64) {
    (task.instance_id, task.number)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;
    use crate::Sqlite;
    use crate::backend::Backed;
    use crate::connections::Connections;

    fn task() -> ProcessTask {
        ProcessTask {
            instance_id: Uuid::now_v7(),
            number: 1,
            process: "moving".to_owned(),
            scope: String::new(),
            instance: "A".to_owned(),
            deadline: None,
            command: None,
            due_at: DateTime::UNIX_EPOCH,
            attempts: 0,
            error: None,
            parked_at: None,
            correlation_id: Uuid::now_v7(),
            causation_id: Uuid::now_v7(),
            trace: None,
        }
    }

    #[tokio::test]
    async fn whoever_was_left_is_to_end_and_nobody_else() {
        let sqlite = Sqlite::new("sqlite::memory:".parse().expect("it is one"));
        let connections = Connections::new(sqlite, 3, Duration::from_secs(30));
        let acquire = async || connections.acquire().await.expect("it opens");
        let (under_way, task) = (UnderWay::default(), task());
        assert_eq!(under_way.ended(&task), None);

        let mut given_back = acquire().await;
        under_way.begun(&task, &mut given_back);
        drop(given_back);
        assert_eq!(under_way.ended(&task), None, "it works for others");

        let mut left = acquire().await;
        left.begin_work();
        under_way.begun(&task, &mut left);
        assert_eq!(under_way.ended(&task), None, "another one is at it");
        let process = <Sqlite as Backed>::process(left.get());
        drop(left);
        assert_eq!(under_way.ended(&task), Some(process));
        assert_eq!(under_way.ended(&task), None);
    }
}
