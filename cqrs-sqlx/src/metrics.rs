//! What is counted and measured, by the facade of the `metrics` crate. Without the feature, nothing
//! is.
//!
//! The names are part of the interface; `docs/operations.md` lists them.

use cqrs_core::Error;
#[cfg(feature = "metrics")]
use cqrs_core::StoreErrorKind;

use crate::health::HorizonHolder;
#[cfg(feature = "metrics")]
use crate::projector::SubscriptionState;
use crate::projector::SubscriptionStatus;

#[cfg(feature = "metrics")]
mod names {
    pub(super) const APPLIED: &str = "cqrs_applied_events_total";
    pub(super) const FAILURES: &str = "cqrs_failures_total";
    pub(super) const LAG: &str = "cqrs_lag_events";
    pub(super) const LAG_TIME: &str = "cqrs_lag_seconds";
    pub(super) const PARKED: &str = "cqrs_parked_events";
    pub(super) const PARKED_COMMANDS: &str = "cqrs_parked_commands";
    pub(super) const STATE: &str = "cqrs_subscription_state";
    pub(super) const HORIZON: &str = "cqrs_horizon_position";
    pub(super) const HELD: &str = "cqrs_horizon_held_seconds";
    pub(super) const HOLDER: &str = "cqrs_horizon_holder_pid";
    pub(super) const WAKE_UPS: &str = "cqrs_wake_ups_total";
    pub(super) const FLUSHES: &str = "cqrs_flushes_total";
    pub(super) const FLUSHED_COMMITS: &str = "cqrs_flushed_commits_total";
    pub(super) const LOAD_FLUSHES: &str = "cqrs_load_flushes_total";
    pub(super) const FLUSHED_LOADS: &str = "cqrs_flushed_loads_total";
    pub(super) const RETRIES: &str = "cqrs_retries_total";
    pub(super) const POOL_TIMEOUTS: &str = "cqrs_pool_timeouts_total";
}

/// Why the horizon is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WakeUp {
    /// Something was committed.
    Signal,
    /// The interval was over.
    Poll,
}

/// A subscription has applied so many events.
pub(crate) fn applied(subscription: &str, events: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!(names::APPLIED, "subscription" => subscription.to_owned()).increment(events);
    #[cfg(not(feature = "metrics"))]
    let _ = (subscription, events);
}

/// An event of a subscription has failed.
pub(crate) fn failed(subscription: &str) {
    #[cfg(feature = "metrics")]
    metrics::counter!(names::FAILURES, "subscription" => subscription.to_owned()).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = subscription;
}

/// The horizon was looked for.
pub(crate) fn looked(horizon: i64, why: WakeUp) {
    #[cfg(feature = "metrics")]
    {
        let why = match why {
            WakeUp::Signal => "signal",
            WakeUp::Poll => "poll",
        };
        metrics::gauge!(names::HORIZON).set(horizon as f64);
        metrics::counter!(names::WAKE_UPS, "by" => why).increment(1);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (horizon, why);
}

/// A flush of coalesced commits has ended, with so many that it has written, and has left.
pub(crate) fn flushed(written: usize, left: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!(names::FLUSHES).increment(1);
        let commits = |outcome| metrics::counter!(names::FLUSHED_COMMITS, "outcome" => outcome);
        commits("written").increment(written as u64);
        commits("left").increment(left as u64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (written, left);
}

/// The answer to a flush with so many commits was lost.
pub(crate) fn flush_lost(commits: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!(names::FLUSHES).increment(1);
        metrics::counter!(names::FLUSHED_COMMITS, "outcome" => "lost").increment(commits as u64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = commits;
}

/// A flush of coalesced loads has ended, with so many that it has answered, and has left.
pub(crate) fn loads_flushed(answered: usize, left: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!(names::LOAD_FLUSHES).increment(1);
        let loads = |outcome| metrics::counter!(names::FLUSHED_LOADS, "outcome" => outcome);
        loads("answered").increment(answered as u64);
        loads("left").increment(left as u64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (answered, left);
}

/// A command has failed and is tried again.
pub(crate) fn retried(error: &Error) {
    #[cfg(feature = "metrics")]
    metrics::counter!(names::RETRIES, "reason" => reason(error)).increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = error;
}

/// Why a command is tried again. A unit of work that an earlier error has spent has that as its
/// source.
#[cfg(feature = "metrics")]
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Conflict { .. } => "conflict",
        Error::Projection { cause, .. } => reason(cause),
        Error::Store(store) => match store.kind() {
            StoreErrorKind::Contention => "contention",
            StoreErrorKind::Unavailable => "unavailable",
            _ => std::error::Error::source(store)
                .and_then(<dyn std::error::Error>::downcast_ref)
                .map_or("other", reason),
        },
        _ => "other",
    }
}

/// Nobody has given back a connection in time.
pub(crate) fn pool_timed_out() {
    #[cfg(feature = "metrics")]
    metrics::counter!(names::POOL_TIMEOUTS).increment(1);
}

/// The subscriptions whose gauges are not zero.
#[derive(Debug, Default)]
pub(crate) struct Gauged {
    #[cfg(feature = "metrics")]
    names: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

/// Somebody asked how things are.
pub(crate) fn health(
    gauged: &Gauged,
    subscriptions: &[SubscriptionStatus],
    holders: &[HorizonHolder],
) {
    #[cfg(feature = "metrics")]
    {
        let mut names = gauged
            .names
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut gone = std::mem::take(&mut *names);
        for status in subscriptions {
            gauge(&status.name, Some(status));
            gone.remove(&status.name);
            names.insert(status.name.clone());
        }
        for name in gone {
            gauge(&name, None);
        }
        let oldest = holders.first();
        let held = oldest.map_or(0.0, |holder| holder.age.as_secs_f64());
        metrics::gauge!(names::HELD).set(held);
        // A value, since each of it would be a time series as a label.
        let pid = oldest.and_then(|holder| holder.pid);
        metrics::gauge!(names::HOLDER).set(f64::from(pid.unwrap_or(0)));
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (gauged, subscriptions, holders);
}

/// Sets the gauges of a subscription; all to zero where it is gone, or an alert would never clear.
#[cfg(feature = "metrics")]
fn gauge(subscription: &str, status: Option<&SubscriptionStatus>) {
    let set = |name: &'static str, value: fn(&SubscriptionStatus) -> f64| {
        metrics::gauge!(name, "subscription" => subscription.to_owned())
            .set(status.map_or(0.0, value));
    };
    set(names::LAG, |status| status.lag as f64);
    set(names::LAG_TIME, |status| status.lag_time.as_secs_f64());
    set(names::PARKED, |status| status.parked as f64);
    set(names::PARKED_COMMANDS, |status| {
        status.parked_commands as f64
    });
    let current = status.map(|status| match status.state {
        SubscriptionState::Active => "active",
        SubscriptionState::Building => "building",
        SubscriptionState::Retrying(_) => "retrying",
        SubscriptionState::Paused => "paused",
        SubscriptionState::Halted(_) => "halted",
    });
    for state in ["active", "building", "retrying", "paused", "halted"] {
        let is_current = f64::from(u8::from(current == Some(state)));
        metrics::gauge!(names::STATE, "subscription" => subscription.to_owned(), "state" => state)
            .set(is_current);
    }
}
