//! How far a subscription has come that catches up, and how long it will take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cqrs_core::mapping::RowSource;
use cqrs_core::{Error, Result, TenantScope};
use tokio::time::Instant;

use super::building;
use super::checkpoint::{read, some};
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// How often a watch looks, unless told.
const EVERY: Duration = Duration::from_secs(1);
/// How much of a new rate counts.
const SMOOTHING: f64 = 0.3;

/// How far a subscription has come. Its text is one line for a terminal:
/// `orders (building): 61 % (610000 of 1000000), 52300/s, 8s left`.
///
/// Events are counted by positions of the log: those that the subscription does not read count too,
/// and positions that were drawn and never used.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SubscriptionProgress {
    /// The name of the subscription.
    pub name: String,
    /// How many events it has passed, on an average of its segments.
    pub done: u64,
    /// How many there are; more as they are committed.
    pub total: u64,
    /// How many events it passes in a second. `None` before that was measured.
    pub rate: Option<f64>,
    /// How long it will take at this rate. `None` where that cannot be told.
    pub left: Option<Duration>,
}

impl SubscriptionProgress {
    /// Whether it has passed all events.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done >= self.total
    }

    /// The part that is done, from 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        match self.total {
            0 => 1.0,
            total => (self.done as f64 / total as f64).min(1.0),
        }
    }

    fn at_rate(mut self, rate: Option<f64>) -> Self {
        let left = self.total.saturating_sub(self.done) as f64;
        self.rate = rate;
        self.left = match rate {
            _ if self.is_done() => Some(Duration::ZERO),
            Some(rate) => Duration::try_from_secs_f64(left / rate).ok(),
            None => None,
        };
        self
    }
}

impl fmt::Display for SubscriptionProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name, done, total, ..
        } = self;
        // Not 100 before it is.
        let percent = (self.fraction() * 100.0).floor();
        write!(f, "{name}: {percent} % ({done} of {total})")?;
        if let Some(rate) = self.rate {
            write!(f, ", {rate:.0}/s")?;
        }
        match self.left {
            Some(left) if !self.is_done() => write!(f, ", {} left", Short(left)),
            _ => Ok(()),
        }
    }
}

/// A time in words: `8s`, `2m 5s`, `3h 20m`.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64().ceil() as u64;
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, seconds) => write!(f, "{seconds}s"),
            (0, minutes, seconds) => write!(f, "{minutes}m {seconds}s"),
            (hours, minutes, _) => write!(f, "{hours}h {minutes}m"),
        }
    }
}

/// Values of [`SubscriptionProgress`] as they come. From
/// [`SqlStore::watch_progress`](crate::SqlStore::watch_progress).
///
/// With the feature `stream` it is a `Stream`, which ends after an error.
pub struct ProgressWatch<B: Backend> {
    shared: Arc<Shared<B>>,
    name: String,
    every: Duration,
    rate: Rate,
    is_over: bool,
    /// What the stream looks for at the moment.
    #[cfg(feature = "stream")]
    look: Option<cqrs_core::BoxFuture<'static, Found>>,
}

/// How far one has come, and whether it builds rows that take the place of others as soon as they can.
type Found = Result<Option<(SubscriptionProgress, bool)>>;

impl<B: Backend> ProgressWatch<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>, name: &str) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            every: EVERY,
            rate: Rate::default(),
            is_over: false,
            #[cfg(feature = "stream")]
            look: None,
        }
    }

    /// How often to look; every second unless told.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval;
        self
    }

    /// The next value: the first at once, others after the interval. `None` after one that
    /// [is done](SubscriptionProgress::is_done); where it builds rows that take the place of others
    /// as soon as they can, when they have, or were given up.
    ///
    /// # Errors
    ///
    /// A [`Usage`](cqrs_core::StoreErrorKind::Usage) error where there is no such subscription at the
    /// first look, unless it is a rebuild, which may be over by then; [`Store`](Error::Store) where the store fails. It may be called again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<SubscriptionProgress>> {
        if self.is_over {
            return Ok(None);
        }
        let found = self.look().await;
        self.add(found)
    }

    /// Looks when it is time to.
    fn look(&self) -> impl Future<Output = Found> + Send + use<B> {
        let (shared, name) = (Arc::clone(&self.shared), self.name.clone());
        let time = self.rate.last.map(|(_, at)| at + self.every);
        async move {
            if let Some(time) = time {
                tokio::time::sleep_until(time).await;
            }
            look(&shared, &name).await
        }
    }

    fn add(&mut self, found: Found) -> Result<Option<SubscriptionProgress>> {
        let Some((progress, switches)) = found? else {
            // A rebuild may be over before anyone looks.
            if self.rate.last.is_none() && building::refuse_name(&self.name).is_ok() {
                return Err(Error::unknown_subscription(&self.name));
            }
            self.is_over = true;
            return Ok(None);
        };
        let rate = self.rate.add(progress.done, Instant::now());
        self.is_over = progress.is_done() && !switches;
        Ok(Some(progress.at_rate(rate)))
    }
}

#[cfg(feature = "stream")]
impl<B: Backend> futures_core::Stream for ProgressWatch<B> {
    type Item = Result<SubscriptionProgress>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_over {
            return std::task::Poll::Ready(None);
        }
        let mut look = this.look.take().unwrap_or_else(|| Box::pin(this.look()));
        let std::task::Poll::Ready(found) = look.as_mut().poll(context) else {
            this.look = Some(look);
            return std::task::Poll::Pending;
        };
        let next = this.add(found);
        // Whoever collects a stream waits for its end.
        this.is_over |= next.is_err();
        std::task::Poll::Ready(next.transpose())
    }
}

impl<B: Backend> fmt::Debug for ProgressWatch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressWatch")
            .field("name", &self.name)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

/// A rate that follows what was measured last, and does not jump with it.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(u64, Instant)>,
    smooth: Option<f64>,
}

impl Rate {
    fn add(&mut self, done: u64, now: Instant) -> Option<f64> {
        if let Some((before, at)) = self.last.replace((done, now)) {
            let seconds = now.duration_since(at).as_secs_f64();
            if seconds > 0.0 {
                let rate = done.saturating_sub(before) as f64 / seconds;
                let old = self.smooth.unwrap_or(rate);
                self.smooth = Some(old + SMOOTHING * (rate - old));
            }
        }
        self.smooth
    }
}

/// How far a subscription has come now.
pub(crate) async fn progress<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
) -> Result<SubscriptionProgress> {
    let found = look(shared, name).await?;
    let (progress, _) = found.ok_or_else(|| Error::unknown_subscription(name))?;
    Ok(progress)
}

async fn look<B: Backend>(shared: &Arc<Shared<B>>, name: &str) -> Found {
    let sql = "SELECT s.position, (SELECT coalesce(max(e.position), 0) FROM cqrs_event AS e), \
               EXISTS (SELECT 1 FROM cqrs_rebuild AS r \
               WHERE r.building = s.subscription AND r.switches) \
               FROM cqrs_segment AS s WHERE s.subscription = $1";
    let select = Select {
        sql: sql.into(),
        parameters: vec![Parameter::text(name)],
    };
    let place = Place::Confined(shared, &TenantScope::System);
    let found = reads::rows(place, &select, None, |row: &B::Row| {
        read(row, |row| {
            let (position, last) = (some(row.read_i64(0)?)?, some(row.read_i64(1)?)?);
            Ok((position, last, some(row.read_bool(2)?)?))
        })
    })
    .await?;
    let Some(&(_, last, switches)) = found.first() else {
        return Ok(None);
    };
    let number = |position: i64| u64::try_from(position).unwrap_or(0);
    let sum: u64 = found.iter().map(|(position, ..)| number(*position)).sum();
    let progress = SubscriptionProgress {
        name: name.to_owned(),
        done: sum / found.len() as u64,
        total: number(last).max(sum / found.len() as u64),
        rate: None,
        left: None,
    };
    Ok(Some((progress.at_rate(None), switches)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, total: u64) -> SubscriptionProgress {
        SubscriptionProgress {
            name: "orders".to_owned(),
            done,
            total,
            rate: None,
            left: None,
        }
    }

    #[test]
    fn it_is_one_line() {
        let text = |progress: SubscriptionProgress| progress.to_string();
        let half = progress(610, 1000);
        assert_eq!(text(half.clone()), "orders: 61 % (610 of 1000)");
        assert_eq!(
            text(half.clone().at_rate(Some(52.3))),
            "orders: 61 % (610 of 1000), 52/s, 8s left"
        );
        assert_eq!(
            text(progress(0, 1_000_000).at_rate(Some(100.0))),
            "orders: 0 % (0 of 1000000), 100/s, 2h 46m left"
        );
        assert_eq!(
            text(half.at_rate(Some(0.0))),
            "orders: 61 % (610 of 1000), 0/s"
        );
        assert_eq!(
            text(progress(999, 1000).at_rate(None)),
            "orders: 99 % (999 of 1000)"
        );
        assert_eq!(
            text(progress(10, 10).at_rate(Some(5.0))),
            "orders: 100 % (10 of 10), 5/s"
        );
        assert_eq!(text(progress(0, 0)), "orders: 100 % (0 of 0)");
    }

    #[test]
    fn a_rate_follows_what_is_measured() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate::default();
        assert_eq!(rate.add(100, start), None);
        assert_eq!(rate.add(300, after(2)), Some(100.0));
        assert_eq!(rate.add(300, after(2)), Some(100.0), "no time has passed");
        assert_eq!(rate.add(500, after(3)), Some(130.0));
    }
}
