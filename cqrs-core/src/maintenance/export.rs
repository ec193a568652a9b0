//! Exports: aggregates one after the other.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tracing::{Instrument, Span};

use super::Source;
use crate::error::Result;
use crate::store::BoxFuture;

/// The aggregates of an [export](super::Maintenance::export), which are read as they are asked
/// for, all as of one moment.
///
/// It is a [`Source`] of imports and, with the feature `stream`, a `Stream`.
///
/// # Transaction
///
/// It holds a connection from the first [`next`](Self::next) until it ends or is dropped. On a
/// SQLite database in memory that is the only one.
#[must_use = "nothing is read before it is asked for"]
pub struct Export<A> {
    producer: Option<BoxFuture<'static, Result<()>>>,
    sink: ExportSink<A>,
}

/// Where the store puts what an [`Export`] hands out. For authors of stores.
pub struct ExportSink<A>(Arc<Mutex<Option<A>>>);

impl<A> Clone for ExportSink<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A> ExportSink<A> {
    fn lock(&self) -> MutexGuard<'_, Option<A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an item out, and waits until the next one is asked for.
    pub async fn put(&self, item: A) {
        *self.lock() = Some(item);
        // Whoever takes the item polls again when the next one is wanted: no waker is needed.
        poll_fn(|_| match *self.lock() {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl<A: Send + 'static> Export<A> {
    /// The export of what `produce` puts into its sink. For authors of stores.
    ///
    /// The future is polled only while an item is asked for; so it awaits the sink itself, not
    /// through something that polls a future only after it was woken.
    pub fn new<F>(produce: impl FnOnce(ExportSink<A>) -> F) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let sink = ExportSink(Arc::new(Mutex::new(None)));
        Self {
            producer: Some(Box::pin(produce(sink.clone()))),
            sink,
        }
    }

    /// The same export, with what it does in a span.
    pub(super) fn instrumented(self, span: Span) -> Self {
        let producer = self
            .producer
            .map(|producer| Box::pin(producer.instrument(span)) as BoxFuture<'static, _>);
        Self { producer, ..self }
    }
}

impl<A> Export<A> {
    /// The next aggregate; `None` at the end, and after an error.
    ///
    /// # Errors
    ///
    /// [`Mapping`](crate::Error::Mapping) where a row does not fit, or the condition cannot be
    /// asked; [`Store`](crate::Error::Store) where the store fails.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Result<Option<A>> {
        poll_fn(|context| self.poll(context)).await.transpose()
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<A>>> {
        let Some(producer) = &mut self.producer else {
            return Poll::Ready(None);
        };
        match producer.as_mut().poll(context) {
            Poll::Pending => match self.sink.lock().take() {
                Some(item) => Poll::Ready(Some(Ok(item))),
                None => Poll::Pending,
            },
            Poll::Ready(ended) => {
                self.producer = None;
                Poll::Ready(ended.err().map(Err))
            }
        }
    }
}

impl<A> fmt::Debug for Export<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("ended", &self.producer.is_none())
            .finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for ExportSink<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExportSink")
    }
}

impl<A: Send> Source<A> for Export<A> {
    async fn read_next(&mut self) -> Result<Option<A>> {
        self.next().await
    }
}

#[cfg(feature = "stream")]
impl<A> futures_core::Stream for Export<A> {
    type Item = Result<A>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<A>>> {
        self.get_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn items_come_in_order_and_then_the_end() {
        let mut export = Export::new(|sink| async move {
            for item in 0..3 {
                sink.put(item).await;
                tokio::task::yield_now().await;
            }
            Ok(())
        });
        let mut found = Vec::new();
        while let Some(item) = export.next().await.expect("no error") {
            found.push(item);
        }
        assert_eq!(found, [0, 1, 2]);
        assert!(matches!(export.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn an_error_is_the_last() {
        let mut export = Export::new(|sink| async move {
            sink.put(1).await;
            Err(Error::other("broken"))
        });
        assert!(matches!(export.next().await, Ok(Some(1))));
        assert!(export.next().await.is_err());
        assert!(matches!(export.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn nothing_is_lost_where_a_wait_is_dropped() {
        let mut waits = 1;
        let mut export = Export::new(|sink| async move {
            poll_fn(|_| match waits {
                0 => Poll::Ready(()),
                _ => {
                    waits -= 1;
                    Poll::Pending
                }
            })
            .await;
            sink.put(1).await;
            Ok(())
        });
        let dropped = poll_fn(|context| Poll::Ready(export.poll(context).is_pending())).await;
        assert!(dropped);
        assert!(matches!(export.next().await, Ok(Some(1))));
    }
}
