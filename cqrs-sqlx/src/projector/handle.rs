//! Life of a running projector: starting its tasks, stopping them in two levels.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A running projector.
///
/// Dropping it cancels what runs, as [`stop`](Self::stop) does when there is no time left.
#[must_use = "dropping the handle stops the projector"]
pub struct ProjectorHandle {
    stopping: watch::Sender<bool>,
    ended: watch::Receiver<Option<Stopped>>,
    tasks: Vec<AbortHandle>,
}

/// How a projector stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every page that was under way was finished and committed.
    Drained,
    /// The time was up: pages that were under way were cancelled and rolled back. They will be
    /// applied when a projector runs again.
    Cancelled,
}

impl ProjectorHandle {
    /// Spawns what `tasks` holds when it is done, under supervision.
    pub(super) fn spawn(spawn: impl FnOnce(&mut Tasks)) -> Self {
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = Tasks {
            set: JoinSet::new(),
            handles: Vec::new(),
            stopping: Stopping(stopped),
        };
        spawn(&mut tasks);
        let (end, ended) = watch::channel(None);
        tokio::spawn(supervise(tasks.set, end));
        Self {
            stopping,
            ended,
            tasks: tasks.handles,
        }
    }

    /// Stops the projector: no page and no command is begun any more, those under way are finished.
    /// What is still running after `grace` is cancelled; its transaction is rolled back.
    ///
    /// A second call, also at the same time, returns the same; with a shorter `grace` it hurries
    /// the first.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the projector still stops, but nothing is cancelled.
    pub async fn stop(&self, grace: Duration) -> Stopped {
        self.stopping.send_replace(true);
        let mut ended = self.ended.clone();
        if tokio::time::timeout(grace, wait(&mut ended)).await.is_err() {
            self.cancel();
        }
        wait(&mut ended).await
    }

    /// Waits until the projector has ended by itself, as it does when its store is closed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn ended(&self) -> Stopped {
        wait(&mut self.ended.clone()).await
    }

    fn cancel(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A runtime that shuts down takes the supervisor with it.
async fn wait(ended: &mut watch::Receiver<Option<Stopped>>) -> Stopped {
    match ended.wait_for(Option::is_some).await {
        Ok(stopped) => stopped.unwrap_or(Stopped::Cancelled),
        Err(_) => Stopped::Cancelled,
    }
}

async fn supervise(mut tasks: JoinSet<()>, end: watch::Sender<Option<Stopped>>) {
    let mut stopped = Stopped::Drained;
    while let Some(result) = tasks.join_next().await {
        match result {
            Ok(()) => {}
            Err(error) if error.is_cancelled() => stopped = Stopped::Cancelled,
            Err(error) => {
                stopped = Stopped::Cancelled;
                tracing::error!(%error, "a task of the projector panicked");
            }
        }
    }
    end.send_replace(Some(stopped));
}

impl Drop for ProjectorHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for ProjectorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectorHandle")
            .field("stopping", &*self.stopping.borrow())
            .field("ended", &*self.ended.borrow())
            .finish_non_exhaustive()
    }
}

/// The tasks of a projector that is about to run.
pub(super) struct Tasks {
    set: JoinSet<()>,
    handles: Vec<AbortHandle>,
    stopping: Stopping,
}

impl Tasks {
    pub(super) fn spawn<F>(&mut self, task: impl FnOnce(Stopping) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = task(self.stopping.clone());
        self.handles.push(self.set.spawn(task));
    }
}

/// Tells a task that it should stop.
#[derive(Debug, Clone)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// One that says nothing.
    pub(super) fn never() -> Self {
        Self(watch::channel(false).1)
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for `future`; `None` where it is time to stop before it is ready.
    pub(super) async fn or<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let stopped = async {
            // Without a handle nobody will ever say stop, or wait for more.
            let _ = self.0.wait_for(|stopping| *stopping).await;
        };
        match select(pin!(stopped), pin!(future)).await {
            Either::Left(_) => None,
            Either::Right((output, _)) => Some(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::{Notify, Semaphore};

    const SOON: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn work_under_way_is_finished() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let handle = ProjectorHandle::spawn(|tasks| {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            tasks.spawn(|stopping| async move {
                begun.notify_one();
                drop(go_on.acquire().await);
                assert!(stopping.is_set(), "stop came before the work went on");
            });
        });
        begun.notified().await;
        let stop = handle.stop(LONG);
        let mut stop = pin!(stop);
        assert!(tokio::time::timeout(SOON, &mut stop).await.is_err());
        go_on.add_permits(1);
        assert_eq!(stop.await, Stopped::Drained);
        assert_eq!(handle.stop(SOON).await, Stopped::Drained, "a second time");
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_cancelled() {
        let handle = ProjectorHandle::spawn(|tasks| {
            tasks.spawn(|_| std::future::pending());
            tasks.spawn(|mut stopping| async move {
                assert!(stopping.or(std::future::pending::<()>()).await.is_none());
            });
        });
        let (patient, hurried) = tokio::join!(handle.stop(LONG), handle.stop(SOON));
        assert_eq!((patient, hurried), (Stopped::Cancelled, Stopped::Cancelled));
    }

    #[tokio::test]
    async fn dropping_the_handle_cancels() {
        let held = Arc::new(());
        let handle = ProjectorHandle::spawn(|tasks| {
            let held = Arc::clone(&held);
            tasks.spawn(|_| async move {
                std::future::pending::<()>().await;
                drop(held);
            });
        });
        let mut ended = handle.ended.clone();
        drop(handle);
        assert_eq!(wait(&mut ended).await, Stopped::Cancelled);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
