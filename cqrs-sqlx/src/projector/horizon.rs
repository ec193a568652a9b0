//! The horizon task: one for all projectors of a store.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use cqrs_core::__private::catch_panic;
use cqrs_core::{Position, Result, TenantScope};
use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::pace::{Backoff, Pace, Polling};
use super::queries;
use crate::backend::{Backend, Horizon, Topic};
use crate::listening::{Ear, listen};
use crate::metrics::{self, WakeUp};
use crate::reads::is_unavailable;
use crate::store::Shared;

/// Commits may be signalled faster than looking makes sense: after more than so many of them since a
/// look began, or while somebody has more to do than a page, the next look waits for
/// [`SHORTEST_GAP`] and finds more at once. Else each commit is seen as soon as can be.
const FEW: u64 = 2;
/// A timer counts whole milliseconds, so it is up to twice as long.
const SHORTEST_GAP: Duration = Duration::from_millis(1);
/// The pauses while writers that are under way end.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The horizon task of a store, while anyone follows it.
#[derive(Default)]
pub(crate) struct Watching {
    task: Mutex<Weak<Task>>,
    behind: AtomicUsize,
}

impl Watching {
    /// Somebody is more than a page behind the horizon, until this is dropped.
    pub(super) fn fall_behind(&self) -> Behind<'_> {
        self.behind.fetch_add(1, Ordering::Relaxed);
        Behind(&self.behind)
    }
}

/// Somebody is behind the horizon.
pub(super) struct Behind<'w>(&'w AtomicUsize);

impl Drop for Behind<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A running task. It ends when the last who follows it has gone.
struct Task {
    horizon: watch::Receiver<Position>,
    /// How often to look, at the wish of the most impatient.
    polling: watch::Sender<Polling>,
    looking: JoinHandle<()>,
}

/// Follows the horizon.
#[derive(Clone)]
pub(super) struct Follower {
    task: Arc<Task>,
}

impl Follower {
    /// Where the horizon is, from now on.
    pub(super) fn horizon(&self) -> watch::Receiver<Position> {
        self.task.horizon.clone()
    }
}

/// Follows the horizon of a store; starts looking for it where nobody does yet.
pub(super) fn follow<B: Backend>(shared: &Arc<Shared<B>>, polling: Polling) -> Follower {
    let mut watching = shared
        .watching
        .task
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // One whose runtime is gone looks no more.
    let running = watching
        .upgrade()
        .filter(|task| !task.looking.is_finished());
    let task = running.unwrap_or_else(|| {
        let (tell, horizon) = watch::channel(Position::START);
        let (polls, polling) = watch::channel(polling);
        tokio::spawn(hear_others(Arc::clone(shared), polls.subscribe()));
        let task = Arc::new(Task {
            horizon,
            polling: polls,
            looking: tokio::spawn(look_again_and_again(Arc::clone(shared), tell, polling)),
        });
        *watching = Arc::downgrade(&task);
        task
    });
    task.polling.send_if_modified(|known| {
        let impatient = polling.shortest < known.shortest;
        if impatient {
            *known = polling;
        }
        impatient
    });
    Follower { task }
}

/// Looks at the log until nobody follows.
async fn look_again_and_again<B: Backend>(
    shared: Arc<Shared<B>>,
    horizon: watch::Sender<Position>,
    mut polling: watch::Receiver<Polling>,
) {
    let mut committed = shared.committed.subscribe();
    let mut known = B::Horizon::default();
    let mut pace = Pace::new(*polling.borrow_and_update());
    let mut why = WakeUp::Poll;
    let mut breaks = 0;
    loop {
        let before = *committed.borrow_and_update();
        let looked_at = Instant::now();
        let looked = async {
            let found = look(&shared, &mut known).await?;
            let broken = shared.readers.breaks() + shared.writers.breaks();
            if std::mem::replace(&mut breaks, broken) != broken {
                // A server that crashed may have lost the pages that were committed last.
                shared.operated.heard(None);
            }
            let moved = horizon.send_if_modified(|position| {
                std::mem::replace(position, found.position) != found.position
            });
            metrics::looked(found.position.0, why);
            Ok(pace.after(moved, found.writers))
        };
        // Nobody would look any more: the recorder of the metrics is not ours.
        let pause = match catch_panic(looked).await.and_then(|looked| looked) {
            Ok(pause) => pause,
            Err(_) if shared.readers.is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "the horizon of the log could not be looked for");
                pace.after(false, false)
            }
        };
        let woken = async {
            let told = tokio::time::timeout(pause, committed.changed()).await;
            let commits = committed.borrow().wrapping_sub(before);
            let is_behind = shared.watching.behind.load(Ordering::Relaxed) > 0;
            if commits > FEW || is_behind {
                tokio::time::sleep_until(looked_at + SHORTEST_GAP).await;
            }
            told.is_ok()
        };
        let told = match select(pin!(polling.changed()), pin!(woken)).await {
            Either::Left((Err(_), _)) => return,
            Either::Left((Ok(()), _)) => None,
            Either::Right((told, _)) => Some(told),
        };
        why = WakeUp::Poll;
        match told {
            Some(true) => {
                why = WakeUp::Signal;
                pace.woken();
            }
            Some(false) => {}
            None => pace = Pace::new(*polling.borrow_and_update()),
        }
    }
}

/// Listens to other processes until nobody follows: to their commits and operations, and for what
/// they wait.
async fn hear_others<B: Backend>(shared: Arc<Shared<B>>, mut followed: watch::Receiver<Polling>) {
    if !shared.committed.reach_others() {
        return;
    }
    let gone = async { while followed.changed().await.is_ok() {} };
    let topics = [Topic::Committed, Topic::Operated, Topic::Awaited];
    let listen = listen(&shared.backend, &topics, |ear| match ear {
        // Nobody was heard until now.
        Ear::Opened => {
            shared.committed.heard(None);
            hear_operation(&shared, None);
        }
        Ear::Heard(heard) if heard.topic == Topic::Awaited => {
            let known = |name: &str| shared.advanced.known(name);
            if shared.waits.asked(&heard.content, known) {
                shared.operated.heard(None);
            }
        }
        Ear::Heard(heard) if heard.topic == Topic::Operated => {
            hear_operation(&shared, heard.teller);
        }
        Ear::Heard(heard) => shared.committed.heard(heard.teller),
        Ear::Closed => {}
    });
    select(pin!(gone), pin!(listen)).await;
}

/// An operator of another process may have resumed what halted here.
fn hear_operation<B: Backend>(shared: &Shared<B>, teller: Option<i32>) {
    if !shared.operated.is_own(teller) {
        // First, so that whoever looks has the last word.
        shared.advanced.forget_halts();
        shared.operated.heard(teller);
    }
}

/// Looks until the horizon includes everything that was committed by now. `None`: writers that were
/// under way still were when the time was over.
pub(crate) async fn settled<B: Backend>(
    shared: &Shared<B>,
    known: &mut B::Horizon,
    patience: Duration,
) -> Result<Option<Position>> {
    let end = Instant::now() + patience;
    let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let horizon = look(shared, known).await?;
        if !horizon.writers || horizon.position > Position::START {
            return Ok(Some(horizon.position));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        tokio::time::sleep(pause.next()).await;
    }
}

/// Looks once.
pub(super) async fn look<B: Backend>(
    shared: &Shared<B>,
    known: &mut B::Horizon,
) -> Result<Horizon> {
    let mut connection = shared.readers.acquire().await?;
    let patience = shared.readers.patience();
    // It waits for no lock.
    let looked = look_on(shared, connection.begin_work(), known);
    let looked = tokio::time::timeout(patience, looked).await;
    let result = looked.unwrap_or_else(|_| Err(shared.readers.no_answer_within(patience)));
    match &result {
        Ok(_) => connection.end_work(),
        Err(error) if is_unavailable(error) => queries::discard(connection, &shared.readers),
        // It is repaired or closed when it is given back.
        Err(_) => {}
    }
    result
}

/// The horizon is that of all tenants.
async fn look_on<B: Backend>(
    shared: &Shared<B>,
    connection: &mut B::Connection,
    known: &mut B::Horizon,
) -> Result<Horizon> {
    shared
        .begin_confined(connection, &TenantScope::System)
        .await?;
    let found = B::horizon(connection, known).await?;
    shared.end_confined(connection).await?;
    Ok(found)
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}
