//! How a cache is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::remote::RemoteCache;

/// `Duration::MAX` means "never", and is more than clocks can add.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How large a cache is, and how old its answers become.
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// use cqrs_core::cache::CacheOptions;
///
/// let options = CacheOptions::default()
///     .max_rows(50_000)
///     .time_to_live(Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct CacheOptions {
    pub(super) max_rows: u64,
    pub(super) time_to_live: Duration,
    pub(super) remote: Option<Arc<dyn RemoteCache>>,
}

impl Default for CacheOptions {
    /// 10,000 rows, 30 seconds, no remote cache.
    fn default() -> Self {
        Self {
            max_rows: 10_000,
            time_to_live: Duration::from_secs(30),
            remote: None,
        }
    }
}

impl CacheOptions {
    /// How many rows are kept at most. An answer weighs as much as it has rows, at least one.
    /// Those that are asked for rarely go first.
    #[must_use]
    pub fn max_rows(mut self, rows: u64) -> Self {
        self.max_rows = rows;
        self
    }

    /// How old an answer becomes, and so how late a change of another process is seen; at most a
    /// hundred years.
    #[must_use]
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = time.min(LONGEST);
        self
    }

    /// Asks this cache for read models before the store, and leaves there what was loaded.
    #[must_use]
    pub fn remote(mut self, cache: impl RemoteCache) -> Self {
        self.remote = Some(Arc::new(cache));
        self
    }
}

impl fmt::Debug for CacheOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("max_rows", &self.max_rows)
            .field("time_to_live", &self.time_to_live)
            .field("remote", &self.remote.is_some())
            .finish()
    }
}
