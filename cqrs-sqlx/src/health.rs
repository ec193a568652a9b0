//! How the log and its consumers are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::Result;

use crate::backend::Backend;
use crate::projector::{SubscriptionFailure, SubscriptionState, SubscriptionStatus};
use crate::store::Shared;

/// What is still healthy.
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// use cqrs_sqlx::HealthLimits;
///
/// let limits = HealthLimits::default().lag(Duration::from_secs(5)).parked(10);
/// ```
#[derive(Debug, Clone)]
pub struct HealthLimits {
    lag: Duration,
    held: Duration,
    parked: u64,
}

impl Default for HealthLimits {
    /// A lag of a minute, a horizon that is held for ten seconds, and nothing parked.
    fn default() -> Self {
        Self {
            lag: Duration::from_secs(60),
            held: Duration::from_secs(10),
            parked: 0,
        }
    }
}

impl HealthLimits {
    /// How long an event may wait for a subscription.
    #[must_use]
    pub fn lag(mut self, lag: Duration) -> Self {
        self.lag = lag;
        self
    }

    /// How long a transaction may hold the horizon.
    #[must_use]
    pub fn held(mut self, held: Duration) -> Self {
        self.held = held;
        self
    }

    /// How many events of a subscription may be parked, and how many commands of a process manager.
    #[must_use]
    pub fn parked(mut self, events: u64) -> Self {
        self.parked = events;
        self
    }
}

/// How the log and its consumers are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// What is wrong, with everything that is to be known of it.
    pub problems: Vec<Problem>,
    /// Where every subscription stands, by name.
    pub subscriptions: Vec<SubscriptionStatus>,
    /// The transactions that hold the horizon, the oldest first.
    pub holders: Vec<HorizonHolder>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// A subscription, or a segment of it, stands still until it is resumed.
    Halted(SubscriptionFailure),
    /// A subscription is behind. One that builds rows anew is, and is no problem by that.
    Lagging {
        /// Its name.
        subscription: String,
        /// How many positions the log is ahead.
        lag: u64,
        /// How long the next event has waited.
        lag_time: Duration,
    },
    /// Events are parked.
    Parked {
        /// The subscription.
        subscription: String,
        /// How many.
        events: u64,
        /// Since when the oldest of them is.
        oldest: Option<DateTime<Utc>>,
    },
    /// Commands of a process manager are parked.
    ParkedCommands {
        /// The manager.
        process: String,
        /// How many.
        commands: u64,
        /// Since when the oldest of them is.
        oldest: Option<DateTime<Utc>>,
    },
    /// A transaction holds up every consumer.
    HorizonHeld(HorizonHolder),
}

impl Health {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    fn judge(
        limits: &HealthLimits,
        subscriptions: Vec<SubscriptionStatus>,
        holders: Vec<HorizonHolder>,
    ) -> Self {
        let mut problems = Vec::new();
        for status in &subscriptions {
            if let SubscriptionState::Halted(failure) = &status.state {
                problems.push(Problem::Halted(failure.clone()));
            }
            if status.lag_time > limits.lag && !status.builds {
                problems.push(Problem::Lagging {
                    subscription: status.name.clone(),
                    lag: status.lag,
                    lag_time: status.lag_time,
                });
            }
            if status.parked > limits.parked {
                problems.push(Problem::Parked {
                    subscription: status.name.clone(),
                    events: status.parked,
                    oldest: status.oldest_parked,
                });
            }
            if status.parked_commands > limits.parked {
                problems.push(Problem::ParkedCommands {
                    process: status.name.clone(),
                    commands: status.parked_commands,
                    oldest: status.oldest_parked_command,
                });
            }
        }
        let held = holders.iter().filter(|holder| holder.age > limits.held);
        problems.extend(held.cloned().map(Problem::HorizonHeld));
        Self {
            problems,
            subscriptions,
            holders,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halted(failure) => write!(f, "halted: {failure}"),
            Self::Lagging {
                subscription,
                lag,
                lag_time,
            } => write!(
                f,
                "subscription {subscription:?} is {lag} positions behind, and its next event has \
                 waited for {lag_time:?}"
            ),
            Self::Parked {
                subscription,
                events,
                oldest,
            } => {
                write!(
                    f,
                    "subscription {subscription:?} has {events} parked events"
                )?;
                write_oldest(f, *oldest)
            }
            Self::ParkedCommands {
                process,
                commands,
                oldest,
            } => {
                write!(
                    f,
                    "process manager {process:?} has parked {commands} commands"
                )?;
                write_oldest(f, *oldest)
            }
            Self::HorizonHeld(holder) => holder.fmt(f),
        }
    }
}

fn write_oldest(f: &mut fmt::Formatter<'_>, oldest: Option<DateTime<Utc>>) -> fmt::Result {
    match oldest {
        Some(oldest) => write!(f, ", the oldest since {oldest}"),
        None => Ok(()),
    }
}

/// Looks at everything.
pub(crate) async fn look<B: Backend>(
    shared: &Arc<Shared<B>>,
    limits: &HealthLimits,
) -> Result<Health> {
    let subscriptions = crate::projector::statuses(shared).await?;
    let holders = holders(shared).await?;
    crate::metrics::health(&shared.gauged, &subscriptions, &holders);
    Ok(Health::judge(limits, subscriptions, holders))
}

/// Who holds the horizon.
pub(crate) async fn holders<B: Backend>(shared: &Shared<B>) -> Result<Vec<HorizonHolder>> {
    let mut connection = shared.readers.acquire().await?;
    let holders = B::holders(connection.begin_work()).await?;
    connection.end_work();
    Ok(holders)
}

/// A transaction that holds the horizon: it has written to the log, or is about to, and has not
/// ended. No consumer passes what was written after it began.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HorizonHolder {
    /// The process of the server behind its session; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The name under which a transaction was prepared: commit it, or roll it back.
    pub prepared: Option<String>,
    /// How long ago it began, by the clock of the database.
    pub age: Duration,
    /// What the session is doing: `active`, or `idle in transaction` where its client is.
    pub state: Option<String>,
    /// Its last statement, as far as the database lets this user see it.
    pub query: Option<String>,
    /// The name that its client gave itself.
    pub application: Option<String>,
}

impl fmt::Display for HorizonHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.prepared) {
            (Some(pid), _) => write!(f, "session {pid}")?,
            (None, Some(name)) => write!(f, "the prepared transaction {name:?}")?,
            (None, None) => f.write_str("a prepared transaction")?,
        }
        if let Some(application) = self.application.as_deref().filter(|name| !name.is_empty()) {
            write!(f, " of {application:?}")?;
        }
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        write!(f, ", has held the horizon for {:?}", self.age)?;
        if let Some(query) = &self.query {
            write!(f, "; its last statement: {query}")?;
        }
        Ok(())
    }
}
