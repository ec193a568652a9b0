//! Running projections: pages, retries, halting.

use std::fmt;
use std::sync::Arc;

use super::state::{Shared, State};
use super::transaction::InMemoryTransaction;
use super::turn::Turn;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::inline::SubscribedName;
use crate::subscription::Subscription;

const PAGE: usize = 100;
const TRIES: u32 = 3;

/// A subscription and how far it is.
#[derive(Debug)]
pub(super) struct Entry {
    subscription: Arc<Subscription<InMemoryTransaction>>,
    turn: Turn,
    position: Position,
    halted: Option<SubscriptionHalted>,
    // Held for its drop: no inline projection may have the name meanwhile.
    _name: SubscribedName,
}

/// How far a subscription is, and whether it goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Everything up to here is applied.
    pub position: Position,
    /// Whether it goes on.
    pub state: SubscriptionState,
}

/// Whether a subscription goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It goes on.
    Active,
    /// An event could not be applied, also not when it was tried again. It goes on after
    /// [`resume`](super::InMemoryStore::resume).
    Halted {
        /// Why.
        error: Arc<Error>,
        /// The position of the event.
        position: Position,
    },
}

/// The error for waiting on a subscription that is halted. Its source is what halted it.
#[derive(Debug, Clone)]
pub struct SubscriptionHalted {
    name: String,
    position: Position,
    error: Arc<Error>,
}

impl SubscriptionHalted {
    /// The name of the subscription.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The position of the event that could not be applied.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }
}

impl fmt::Display for SubscriptionHalted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "subscription {:?} is halted at position {}",
            self.name, self.position
        )
    }
}

impl std::error::Error for SubscriptionHalted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.error.as_ref())
    }
}

impl Shared {
    /// Adds a subscription at the start of the log.
    ///
    /// # Errors
    ///
    /// `Usage` where its name is taken, also by an inline projection.
    pub(super) fn subscribe(&self, subscription: Subscription<InMemoryTransaction>) -> Result<()> {
        let name = subscription.name().to_owned();
        let subscribed = self.inline.subscribe(&name)?;
        let mut state = self.lock();
        if state.subscriptions.contains_key(&name) {
            return Err(Error::store(
                StoreErrorKind::Usage,
                format!("there is a subscription named {name:?} already"),
            ));
        }
        let entry = Entry {
            subscription: Arc::new(subscription),
            turn: Turn::default(),
            position: Position::START,
            halted: None,
            _name: subscribed,
        };
        state.subscriptions.insert(name, entry);
        Ok(())
    }

    pub(super) fn status(&self, name: &str) -> Option<SubscriptionStatus> {
        let state = self.lock();
        let entry = state.subscriptions.get(name)?;
        Some(SubscriptionStatus {
            position: entry.position,
            state: match &entry.halted {
                None => SubscriptionState::Active,
                Some(halted) => SubscriptionState::Halted {
                    error: Arc::clone(&halted.error),
                    position: halted.position,
                },
            },
        })
    }

    pub(super) fn resume(&self, name: &str) -> Result<()> {
        entry(&mut self.lock(), name)?.halted = None;
        Ok(())
    }

    /// Whether the subscription has applied everything up to `position`.
    ///
    /// # Errors
    ///
    /// `Usage` where there is none of this name.
    pub(super) fn has_passed(&self, name: &str, position: Position) -> Result<bool> {
        Ok(entry(&mut self.lock(), name)?.position >= position)
    }
}

/// Runs a subscription to the end of the log, or to where it halts.
///
/// # Errors
///
/// [`SubscriptionHalted`], and `Usage` where there is none of this name.
pub(super) async fn run(shared: &Arc<Shared>, name: &str) -> Result<()> {
    let (subscription, turn) = {
        let mut state = shared.lock();
        let entry = entry(&mut state, name)?;
        (Arc::clone(&entry.subscription), entry.turn.clone())
    };
    let _turn = turn.take().await;
    let mut limit = PAGE;
    loop {
        let Some((page, end)) = next_page(&mut shared.lock(), &subscription, limit)? else {
            return Ok(());
        };
        match apply(shared, &subscription, &page, end).await {
            Ok(()) => {}
            // One by one, so that all before the bad event is applied and it alone is named.
            Err(_) if page.len() > 1 => limit = 1,
            Err(error) => return Err(halt(shared, name, &page, error)),
        }
    }
}

/// The next events for a subscription, and the position that they bring it to; `None` at the end.
fn next_page(
    state: &mut State,
    subscription: &Subscription<InMemoryTransaction>,
    limit: usize,
) -> Result<Option<(Vec<Envelope<RawPayload>>, Position)>> {
    let entry = entry(state, subscription.name())?;
    if let Some(halted) = &entry.halted {
        return Err(Error::other(halted.clone()));
    }
    let position = entry.position;
    let end = state.end();
    let wanted = |event: &&Envelope<RawPayload>| subscription.wants(event);
    let page: Vec<_> = state
        .after(position)
        .iter()
        .filter(wanted)
        .take(limit)
        .cloned()
        .collect();
    if position >= end {
        return Ok(None);
    }
    let end = match page.last() {
        Some(last) if page.len() == limit => last.position(),
        _ => end,
    };
    Ok(Some((page, end)))
}

async fn apply(
    shared: &Arc<Shared>,
    subscription: &Subscription<InMemoryTransaction>,
    page: &[Envelope<RawPayload>],
    end: Position,
) -> Result<()> {
    let mut tries = 0;
    loop {
        let mut transaction = InMemoryTransaction::new(Arc::clone(shared));
        let result = subscription.apply(page, &mut transaction).await;
        tries += 1;
        match result {
            Ok(()) => {
                let mut state = shared.lock();
                transaction.apply(&mut state);
                entry(&mut state, subscription.name())?.position = end;
                return Ok(());
            }
            Err(error @ Error::Undecodable { .. }) => return Err(error),
            Err(error) if tries == TRIES => return Err(error),
            Err(error) => {
                tracing::debug!(subscription = subscription.name(), %error, "retrying");
            }
        }
    }
}

fn halt(shared: &Shared, name: &str, page: &[Envelope<RawPayload>], error: Error) -> Error {
    let halted = SubscriptionHalted {
        name: name.to_owned(),
        position: page.first().map_or(Position::START, Envelope::position),
        error: Arc::new(error),
    };
    tracing::error!(subscription = name, position = %halted.position, error = %halted.error, "halted");
    if let Some(entry) = shared.lock().subscriptions.get_mut(name) {
        entry.halted = Some(halted.clone());
    }
    Error::other(halted)
}

fn entry<'s>(state: &'s mut State, name: &str) -> Result<&'s mut Entry> {
    state
        .subscriptions
        .get_mut(name)
        .ok_or_else(|| Error::unknown_subscription(name))
}
