//! Where an import takes its aggregates from, and how it goes on.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::Result;

/// Where an [import](super::Maintenance::import) takes its aggregates from.
///
/// Every iterator is one, and so is an [`Export`](super::Export). For anything that is read
/// asynchronously, a file say, implement it:
///
/// ```
/// use cqrs_core::maintenance::Source;
/// # use cqrs_core::Result;
/// # struct Lines; impl Lines { async fn next_line(&mut self) -> Result<Option<String>> { Ok(None) } }
/// # struct Account(String);
///
/// struct Accounts(Lines);
///
/// impl Source<Account> for Accounts {
///     async fn read_next(&mut self) -> Result<Option<Account>> {
///         Ok(self.0.next_line().await?.map(Account))
///     }
/// }
/// ```
pub trait Source<A>: Send {
    /// The next aggregate; `None` at the end.
    ///
    /// # Errors
    ///
    /// Where it cannot be read; the import ends with this error.
    fn read_next(&mut self) -> impl Future<Output = Result<Option<A>>> + Send;
}

impl<A: Send, I: Iterator<Item = A> + Send> Source<A> for I {
    async fn read_next(&mut self) -> Result<Option<A>> {
        Ok(self.next())
    }
}

/// How far an import has come, told after each batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    rows: usize,
    elapsed: Duration,
}

impl Progress {
    pub(super) fn since(begun: Instant, rows: usize) -> Self {
        Self {
            rows,
            elapsed: begun.elapsed(),
        }
    }

    /// How many aggregates are committed: the first so many of the source.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How long it has taken.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// How many aggregates were committed per second, on average.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate is no exact number anyway"
    )]
    pub fn rows_per_second(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_rows_over_time() {
        let progress = Progress {
            rows: 300,
            elapsed: Duration::from_millis(1_500),
        };
        assert!((progress.rows_per_second() - 200.0).abs() < 1e-9);
    }
}
