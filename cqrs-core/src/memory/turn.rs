//! An async lock without a runtime: who runs a subscription.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

#[derive(Debug, Default)]
struct Inner {
    taken: bool,
    waiting: Vec<Waker>,
}

/// Lets one task at a time through; the others wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<Mutex<Inner>>);

/// Gives the turn back when it is dropped, also where the task that has it is cancelled.
#[derive(Debug)]
pub(super) struct Taken(Turn);

impl Turn {
    pub(super) async fn take(&self) -> Taken {
        poll_fn(|context| {
            let mut inner = self.lock();
            if inner.taken {
                inner.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            inner.taken = true;
            Poll::Ready(Taken(self.clone()))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let waiting = {
            let mut inner = self.0.lock();
            inner.taken = false;
            std::mem::take(&mut inner.waiting)
        };
        // All of them: one that was woken and then cancelled would not pass it on.
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_at_a_time() {
        let turn = Turn::default();
        let counter = Arc::new(Mutex::new(0));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (turn, counter) = (turn.clone(), Arc::clone(&counter));
                tokio::spawn(async move {
                    let _taken = turn.take().await;
                    let seen = *counter.lock().unwrap();
                    tokio::task::yield_now().await;
                    *counter.lock().unwrap() = seen + 1;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*counter.lock().unwrap(), 50);
    }
}
