//! Coalesced work: commits, and loads, that are under way at the same moment go out as one statement,
//! and each caller gets an answer of its own.
//!
//! They meet in lanes, one for each table and operation. Work that finds few in its lane
//! ([`Work::ALONE`]) goes out alone, at once, as it would without all this. Any other waits for a flush:
//! a task that takes what waits in the lane, sends it, answers, and begins again until nothing waits. So
//! nobody waits for others to come, and only while a flush is under way does a next one gather.

mod commits;
mod flush;
mod lanes;
mod loads;
#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::{Entity, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::flush::Flush;
use self::lanes::{Entered, First, Lanes, Waiting};
use self::loads::Load;
use crate::backend::Backend;
use crate::connections::Connection;
use crate::select::Select;

pub(crate) use self::commits::{Answer, Commit, size};
pub(crate) use self::flush::Outlet;
pub(crate) use self::loads::Loaded;

/// How long those who wait for a flush are kept waiting by a connection that cannot be had, or by a
/// server that does not answer, before they go out alone. They may have to wait for a connection of
/// their own then, so it is a part of that time.
fn patience(acquire_timeout: Duration) -> Duration {
    (acquire_timeout / 4).min(Duration::from_secs(1))
}

/// What may go out together with others of its kind.
pub(crate) trait Work: Sized + Send + 'static {
    /// What it has in common with those that it goes out with.
    type Lane: Copy + Eq + Hash + Send + 'static;
    /// What its caller is told.
    type Answer: Send;

    /// How much of a lane is under way alone before others gather.
    const ALONE: usize;

    fn lane(&self) -> Self::Lane;

    /// How many bytes it has, as far as they count.
    fn size(&self) -> usize;

    /// The answer that it is to go out alone. While the second value lives, others gather behind it.
    fn alone(self, first: Option<First<Self::Lane>>) -> Self::Answer;
}

/// How work goes out.
trait Outgoing<B: Backend>: Work {
    /// Sends all of it, and answers each. One that is dropped before its end answers all the same.
    fn send(
        outlet: &Outlet<B>,
        connection: Connection<B>,
        waiting: Vec<Waiting<Self>>,
    ) -> impl Future<Output = ()> + Send;
}

/// Where work becomes flushes.
pub(crate) struct Coalescer<B: Backend> {
    outlet: Arc<Outlet<B>>,
    commits: Arc<Lanes<Box<Commit>>>,
    loads: Arc<Lanes<Load<B>>>,
}

impl<B: Backend> Coalescer<B> {
    /// One that sends up to so much at once.
    pub(crate) fn new(outlet: Outlet<B>, most: usize) -> Self {
        Self {
            outlet: Arc::new(outlet),
            commits: Arc::new(Lanes::new(most)),
            loads: Arc::new(Lanes::new(most)),
        }
    }

    /// Has a commit go out with others, where there are any.
    ///
    /// # Cancel safety
    ///
    /// Where the future is dropped before a flush takes the commit, it does not happen; after that,
    /// it may.
    pub(crate) async fn commit(&self, commit: Box<Commit>) -> Answer {
        match self.join(&self.commits, commit) {
            Ok(answer) => answer
                .await
                .expect("every commit that waits is answered, also when its flush is dropped"),
            Err(alone) => alone,
        }
    }

    /// Has a load of one entity by its key go out with others, where there are any.
    pub(crate) async fn load<T: Entity>(&self, select: &Select) -> Loaded<T> {
        match self.join(&self.loads, Load::of::<T>(select)) {
            // One that was not answered was dropped with its flush.
            Ok(answer) => answer.await.map_or(Loaded::Alone(None), Loaded::typed),
            Err(alone) => alone.typed(),
        }
    }

    /// What becomes of work in its lane: an answer that will come, or that it goes out alone.
    fn join<W: Outgoing<B>>(
        &self,
        lanes: &Arc<Lanes<W>>,
        work: W,
    ) -> Result<oneshot::Receiver<W::Answer>, W::Answer> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(work.alone(None));
        };
        match lanes.enter(work) {
            Entered::Empty(work, first) => Err(work.alone(Some(first))),
            Entered::Behind(answer) => Ok(answer),
            Entered::ToFlush(turn, answer) => {
                if !self.outlet.rests() {
                    let flush = Flush::new(Arc::clone(&self.outlet), turn);
                    runtime.spawn(flush.run());
                }
                Ok(answer)
            }
        }
    }

    /// Sends nothing together any more.
    pub(crate) fn close(&self) {
        self.outlet.close();
    }
}
