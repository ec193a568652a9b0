//! Telling other processes, soon and not too often, on a connection of its own.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cqrs_core::Result;

use crate::backend::{Backend, Message};
use crate::connections::Connections;

/// How long others are told nothing more, after they were told.
const GAP: Duration = Duration::from_millis(1);
/// The same, while there is so much news that each would be told alone.
const GAP_UNDER_LOAD: Duration = Duration::from_millis(5);
/// How long the others are told at most: nothing relies on it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much news within the shorter gap is a load; in the longer one it is one a millisecond.
const LOAD: u64 = 2;
/// How many messages are kept that could not be told. Who waits for one asks the database too.
const MOST_KEPT: usize = 100;

/// No process of the server.
const NOBODY: i32 = 0;

/// What there is to tell.
pub(crate) trait News: Send + Sync + 'static {
    /// How much news there was, in all.
    fn count(&self) -> u64;

    /// Takes what was not told yet.
    fn take(&self) -> Vec<Message>;
}

/// Tells other processes, at once and then after a gap, however much news there was in it.
///
/// The task that does so lives only as long as there is something to tell.
pub(crate) struct Notifier<B: Backend, N> {
    connection: Connections<B>,
    news: N,
    /// What could not be told, and is told with the next news.
    kept: Kept,
    /// Whether the task runs.
    running: AtomicBool,
    /// The process of the server behind the connection, as long as it is known.
    teller: AtomicI32,
}

impl<B: Backend, N: News> Notifier<B, N> {
    /// Several may share a connection; each keeps gaps of its own.
    pub(crate) fn new(connection: Connections<B>, news: N) -> Self {
        Self {
            connection,
            news,
            kept: Kept::default(),
            running: AtomicBool::new(false),
            teller: AtomicI32::new(NOBODY),
        }
    }

    pub(crate) fn news(&self) -> &N {
        &self.news
    }

    /// There is something to tell, and it is counted.
    pub(crate) fn signal(self: &Arc<Self>) {
        if self.running.load(Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if let Some(running) = Running::begin(self) {
            runtime.spawn(running.run());
        }
    }

    /// The process of the server that told last.
    pub(crate) fn teller(&self) -> Option<i32> {
        match self.teller.load(Ordering::Relaxed) {
            NOBODY => None,
            process => Some(process),
        }
    }

    /// Tells nobody any more.
    pub(crate) fn close(&self) {
        self.connection.close();
    }

    /// Tells the others before it returns, outside of any gap; gives up soon.
    pub(crate) async fn tell_now(&self) {
        match tokio::time::timeout(PATIENCE, self.tell()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "other processes were not told"),
            Err(_) => tracing::debug!("other processes were not told within {PATIENCE:?}"),
        }
    }

    /// Tells the others; a connection that died unnoticed is replaced once.
    async fn tell(&self) -> Result<()> {
        let telling = self.kept.and(self.news.take());
        let messages = &telling.messages;
        if messages.is_empty() {
            return Ok(());
        }
        match self.try_to_tell(messages).await {
            Err(error) if crate::reads::is_unavailable(&error) => {
                self.try_to_tell(messages).await?;
            }
            told => told?,
        }
        telling.told();
        Ok(())
    }

    async fn try_to_tell(&self, messages: &[Message]) -> Result<()> {
        let mut connection = self.connection.acquire().await?;
        let teller = B::process(connection.get()).id().unwrap_or(NOBODY);
        self.teller.store(teller, Ordering::Relaxed);
        match B::notify(connection.begin_work(), messages).await {
            Ok(()) => {
                connection.end_work();
                Ok(())
            }
            Err(error) => {
                connection.discard();
                Err(error)
            }
        }
    }
}

/// Messages that could not be told.
#[derive(Default)]
struct Kept(Mutex<Vec<Message>>);

impl Kept {
    /// What was kept, and new messages.
    fn and(&self, news: Vec<Message>) -> Telling<'_> {
        let mut messages = std::mem::take(&mut *self.lock());
        for message in news {
            if !messages.contains(&message) {
                messages.push(message);
            }
        }
        Telling {
            messages,
            kept: self,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages that are being told. They are kept where this is dropped before they are.
struct Telling<'k> {
    messages: Vec<Message>,
    kept: &'k Kept,
}

impl Telling<'_> {
    fn told(mut self) {
        self.messages.clear();
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let mut kept = self.kept.lock();
        kept.append(&mut self.messages);
        let oldest = kept.len().saturating_sub(MOST_KEPT);
        kept.drain(..oldest);
    }
}

/// The right to be the task. Given back when it is dropped, also with the runtime.
struct Running<B: Backend, N: News>(Arc<Notifier<B, N>>);

impl<B: Backend, N: News> Running<B, N> {
    fn begin(notifier: &Arc<Notifier<B, N>>) -> Option<Self> {
        let taken = notifier.running.swap(true, Ordering::SeqCst);
        (!taken).then(|| Self(Arc::clone(notifier)))
    }

    async fn run(self) {
        let mut running = self;
        loop {
            let told = running.tell_while_there_is_news().await;
            let notifier = Arc::clone(&running.0);
            drop(running);
            // Who signalled since the last look and until now found the task running.
            if notifier.news.count() == told {
                return;
            }
            match Self::begin(&notifier) {
                Some(again) => running = again,
                None => return,
            }
        }
    }

    /// Returns how much news others were told of.
    async fn tell_while_there_is_news(&self) -> u64 {
        let mut told = None;
        let mut gap = GAP;
        loop {
            let news = self.0.news.count();
            match told {
                Some(told) if told == news => return told,
                Some(told) => gap = next_gap(gap, news - told),
                None => {}
            }
            told = Some(news);
            self.0.tell_now().await;
            tokio::time::sleep(gap).await;
        }
    }
}

/// The gap after one in which there was so much news.
fn next_gap(gap: Duration, news: u64) -> Duration {
    let load = u64::try_from(gap.as_millis()).map_or(LOAD, |millis| millis.max(LOAD));
    if news > load { GAP_UNDER_LOAD } else { GAP }
}

impl<B: Backend, N: News> Drop for Running<B, N> {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Topic;

    fn message(number: usize) -> Message {
        Message {
            topic: Topic::Arrived,
            content: number.to_string(),
        }
    }

    #[test]
    fn what_could_not_be_told_is_told_with_the_next_news() {
        let kept = Kept::default();
        drop(kept.and(vec![message(1), message(2)]));
        let next = kept.and(vec![message(2), message(3)]);
        assert_eq!(next.messages, [1, 2, 3].map(message));
        next.told();
        assert_eq!(kept.and(Vec::new()).messages, []);
    }

    #[test]
    fn not_everything_is_kept() {
        let kept = Kept::default();
        drop(kept.and((0..MOST_KEPT + 2).map(message).collect()));
        let messages = &kept.and(Vec::new()).messages;
        assert_eq!(messages.len(), MOST_KEPT);
        assert_eq!(messages[0], message(2));
    }

    #[test]
    fn the_gap_follows_the_load() {
        assert_eq!(next_gap(GAP, 1), GAP);
        assert_eq!(next_gap(GAP, 3), GAP_UNDER_LOAD);
        assert_eq!(next_gap(GAP_UNDER_LOAD, 10), GAP_UNDER_LOAD);
        assert_eq!(next_gap(GAP_UNDER_LOAD, 5), GAP);
    }
}
