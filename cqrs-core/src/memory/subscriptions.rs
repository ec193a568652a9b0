//! Running subscriptions: pages, retries, and what becomes of events that fail.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::dead_letters::{DeadLetter, DeadLetterStatus, DeadLetters};
use super::state::{Shared, State};
use super::transaction::InMemoryTransaction;
use super::turn::Turn;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreErrorKind};
use crate::inline::SubscribedName;
use crate::panics::catch_panic;
use crate::subscription::{FailurePolicy, Parking, StartAt, Subscription};

const PAGE: usize = 100;
const TRIES: u32 = 3;

/// A subscription and how far it is.
#[derive(Debug)]
pub(super) struct Entry {
    subscription: Arc<Subscription<InMemoryTransaction>>,
    turn: Turn,
    position: Position,
    /// How far it had come before it was reset.
    mark: Position,
    halted: Option<SubscriptionHalted>,
    paused: bool,
    letters: DeadLetters,
    // Held for its drop: no inline projection may have the name meanwhile.
    _name: SubscribedName,
}

impl Entry {
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The positions of the events that were not applied.
    pub(super) fn dead_positions(&self) -> impl Iterator<Item = Position> {
        self.letters.positions()
    }
}

/// How far a subscription is, and whether it goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Everything up to here is applied, or is among the dead letters.
    pub position: Position,
    /// Whether it goes on: halted also where it is paused too.
    pub state: SubscriptionState,
    /// Whether somebody [paused](super::InMemoryStore::pause_subscription) it, whatever its state.
    pub paused: bool,
}

/// Whether a subscription goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It goes on.
    Active,
    /// Somebody paused it. It goes on after [`resume`](super::InMemoryStore::resume).
    Paused,
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
    /// Adds a subscription where it says that it begins.
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
            turn: Turn::default(),
            position: start(&state, subscription.start()),
            subscription: Arc::new(subscription),
            mark: Position::START,
            halted: None,
            paused: false,
            letters: DeadLetters::default(),
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
            paused: entry.paused,
            state: match &entry.halted {
                None if entry.paused => SubscriptionState::Paused,
                None => SubscriptionState::Active,
                Some(halted) => SubscriptionState::Halted {
                    error: Arc::clone(&halted.error),
                    position: halted.position,
                },
            },
        })
    }

    pub(super) fn resume(&self, name: &str) -> Result<()> {
        let mut state = self.lock();
        let entry = entry(&mut state, name)?;
        (entry.halted, entry.paused) = (None, false);
        Ok(())
    }

    pub(super) fn dead_letters(&self, name: &str) -> Result<Vec<DeadLetter>> {
        Ok(entry(&mut self.lock(), name)?.letters.all())
    }

    /// Has the chosen aggregates replayed when the subscription runs next; how many they are.
    pub(super) fn replay(
        &self,
        name: &str,
        chosen: impl Fn(&Envelope<RawPayload>) -> bool,
    ) -> Result<u64> {
        let now = self.clock.now();
        Ok(entry(&mut self.lock(), name)?.letters.replay(now, chosen))
    }

    /// Gives up a dead letter; those that stood behind it are replayed.
    pub(super) fn discard_event(&self, name: &str, position: Position) -> Result<bool> {
        let now = self.clock.now();
        let mut state = self.lock();
        let letters = &mut entry(&mut state, name)?.letters;
        let Some(removed) = letters.remove(position) else {
            return Ok(false);
        };
        let behind = letters.of(&removed.event);
        if behind
            .first()
            .is_some_and(|first| first.position() > position)
        {
            letters.replay(now, |event| behind.contains(event));
        }
        Ok(true)
    }

    /// Gives up the parked events of an aggregate; how many they were.
    pub(super) fn discard(&self, name: &str, aggregate_type: &str, id: &str) -> Result<u64> {
        let mut state = self.lock();
        let letters = &mut entry(&mut state, name)?.letters;
        let chosen: Vec<Position> = letters
            .all()
            .into_iter()
            .filter(|letter| {
                letter.status == DeadLetterStatus::Parked
                    && letter.event.aggregate_type() == aggregate_type
                    && letter.event.aggregate_id_str() == id
            })
            .map(|letter| letter.event.position())
            .collect();
        for position in &chosen {
            letters.remove(*position);
        }
        Ok(chosen.len() as u64)
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

impl State {
    /// Whether somebody has paused a subscription.
    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.subscriptions
            .get(name)
            .is_some_and(|entry| entry.paused)
    }
}

/// The position after which a new subscription reads.
fn start(state: &State, start: StartAt) -> Position {
    match start {
        StartAt::Beginning => Position::START,
        StartAt::Now => state.end(),
        StartAt::Time(time) => {
            let mut events = state.log().iter();
            let first = events.find(|event| event.recorded_at() >= time);
            first.map_or(state.end(), |first| Position(first.position().0 - 1))
        }
    }
}

/// Waits for the page under way, and has no further ones applied.
pub(super) async fn pause(shared: &Arc<Shared>, name: &str) -> Result<()> {
    let turn = entry(&mut shared.lock(), name)?.turn.clone();
    let _turn = turn.take().await;
    entry(&mut shared.lock(), name)?.paused = true;
    Ok(())
}

/// Removes what a subscription has written, and brings it back to where it is to start.
pub(super) async fn reset(shared: &Arc<Shared>, name: &str, to: StartAt) -> Result<()> {
    let (subscription, turn) = {
        let mut state = shared.lock();
        let entry = entry(&mut state, name)?;
        (Arc::clone(&entry.subscription), entry.turn.clone())
    };
    let _turn = turn.take().await;
    let mut transaction = InMemoryTransaction::new(Arc::clone(shared));
    subscription.clear(&mut transaction).await?;
    let mut state = shared.lock();
    let start = start(&state, to);
    let found = entry(&mut state, name)?;
    if subscription.has_side_effects() && found.letters.count() > 0 {
        return Err(Error::parked_side_effects(name));
    }
    found.mark = found.mark.max(found.position);
    found.position = found.position.min(start);
    found.halted = None;
    // What was skipped does not come again for handlers with side effects, and its record says so.
    if !subscription.has_side_effects() {
        found.letters = DeadLetters::default();
    }
    transaction.apply(&mut state);
    Ok(())
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
    active(&mut shared.lock(), name)?;
    replay_due(shared, &subscription).await?;
    let mut limit = PAGE;
    loop {
        let Some(page) = next_page(&mut shared.lock(), &subscription, limit)? else {
            return Ok(());
        };
        let room = room(shared, &subscription)?;
        let single = page.free.len() + page.held.len() <= 1;
        if page.held.len() > room {
            if single {
                let position = page.held.first().map_or(page.end, Envelope::position);
                return Err(halt(shared, name, position, full(&subscription)));
            }
            limit = 1;
            continue;
        }
        let Page { free, held, end } = page;
        let applied = apply(shared, &subscription, &free, |entry| {
            entry.position = end;
            for event in held {
                entry
                    .letters
                    .put(event, DeadLetterStatus::Parked, None, None);
            }
        });
        match applied.await {
            Ok(()) => {}
            Err(error) if error.is_of_page() => {
                let position = free.first().map_or(end, Envelope::position);
                return Err(halt(shared, name, position, error));
            }
            // One by one, so that all before the bad event is applied and it alone is named.
            Err(_) if !single => limit = 1,
            Err(error) => match free.into_iter().next() {
                Some(event) => put_aside(shared, &subscription, event, error, room)?,
                None => return Err(error),
            },
        }
    }
}

/// The next events for a subscription.
struct Page {
    /// Those to be applied.
    free: Vec<Envelope<RawPayload>>,
    /// Those of parked aggregates.
    held: Vec<Envelope<RawPayload>>,
    /// The position that they bring it to.
    end: Position,
}

/// The next page; `None` at the end of the log.
fn next_page(
    state: &mut State,
    subscription: &Subscription<InMemoryTransaction>,
    limit: usize,
) -> Result<Option<Page>> {
    let position = active(state, subscription.name())?.position;
    let end = state.end();
    if position >= end {
        return Ok(None);
    }
    let wanted = |event: &&Envelope<RawPayload>| subscription.wants(event);
    let page: Vec<_> = state
        .after(position)
        .iter()
        .filter(wanted)
        .take(limit)
        .cloned()
        .collect();
    let end = match page.last() {
        Some(last) if page.len() == limit => last.position(),
        _ => end,
    };
    let letters = &entry(state, subscription.name())?.letters;
    let (held, free) = page.into_iter().partition(|event| letters.holds(event));
    Ok(Some(Page { free, held, end }))
}

/// Applies events in a transaction, and does what belongs to it when they are.
async fn apply(
    shared: &Arc<Shared>,
    subscription: &Subscription<InMemoryTransaction>,
    events: &[Envelope<RawPayload>],
    done: impl FnOnce(&mut Entry),
) -> Result<()> {
    let mut tries = 0;
    loop {
        let mark = entry(&mut shared.lock(), subscription.name())?.mark;
        let mut transaction = InMemoryTransaction::new(Arc::clone(shared));
        let applied = catch_panic(subscription.apply(events, mark, &mut transaction)).await;
        let result = applied.and_then(|result| result);
        tries += 1;
        match result {
            Ok(()) => {
                let mut state = shared.lock();
                transaction.apply(&mut state);
                done(entry(&mut state, subscription.name())?);
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

/// Does with an event that failed what the policy says.
fn put_aside(
    shared: &Shared,
    subscription: &Subscription<InMemoryTransaction>,
    event: Envelope<RawPayload>,
    error: Error,
    room: usize,
) -> Result<()> {
    let (name, position) = (subscription.name(), event.position());
    let status = match subscription.policy() {
        FailurePolicy::Halt => return Err(halt(shared, name, position, error)),
        FailurePolicy::Park(_) if room == 0 => {
            return Err(halt(shared, name, position, full(subscription)));
        }
        FailurePolicy::Park(_) => DeadLetterStatus::Parked,
        FailurePolicy::Skip => DeadLetterStatus::Skipped,
    };
    tracing::warn!(subscription = name, %position, %error, "an event is among the dead letters");
    let replay_at = next_replay(shared, subscription);
    let mut state = shared.lock();
    let entry = entry(&mut state, name)?;
    entry.position = position;
    entry.letters.put(event, status, Some(error), replay_at);
    Ok(())
}

/// Replays what is due, each aggregate in its order and up to the first event that fails.
async fn replay_due(
    shared: &Arc<Shared>,
    subscription: &Subscription<InMemoryTransaction>,
) -> Result<()> {
    let name = subscription.name();
    let now = shared.clock.now();
    let due = entry(&mut shared.lock(), name)?.letters.due(now);
    for first in due {
        let parked = entry(&mut shared.lock(), name)?.letters.of(&first);
        for event in &parked {
            let position = event.position();
            let applied = apply(shared, subscription, std::slice::from_ref(event), |entry| {
                entry.letters.remove(position);
            });
            if let Err(error) = applied.await {
                let replay_at = next_replay(shared, subscription);
                let mut state = shared.lock();
                let letters = &mut entry(&mut state, name)?.letters;
                letters.failed(position, error, replay_at);
                break;
            }
        }
    }
    Ok(())
}

/// When what is parked now is replayed by itself.
fn next_replay(
    shared: &Shared,
    subscription: &Subscription<InMemoryTransaction>,
) -> Option<DateTime<Utc>> {
    let FailurePolicy::Park(parking) = subscription.policy() else {
        return None;
    };
    let interval = TimeDelta::from_std(parking.replay_interval()?).ok()?;
    shared.clock.now().checked_add_signed(interval)
}

/// How many more events may be parked.
fn room(shared: &Shared, subscription: &Subscription<InMemoryTransaction>) -> Result<usize> {
    let count = entry(&mut shared.lock(), subscription.name())?
        .letters
        .count();
    let limit = match subscription.policy() {
        FailurePolicy::Park(parking) => parking.limit(),
        _ => Parking::default().limit(),
    };
    Ok(usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(count))
}

fn full(subscription: &Subscription<InMemoryTransaction>) -> Error {
    Error::other(format!(
        "as many events of subscription {:?} are parked as may be; replay or discard some, then \
         resume",
        subscription.name()
    ))
}

fn halt(shared: &Shared, name: &str, position: Position, error: Error) -> Error {
    let halted = SubscriptionHalted {
        name: name.to_owned(),
        position,
        error: Arc::new(error),
    };
    tracing::error!(subscription = name, position = %halted.position, error = %halted.error, "halted");
    if let Some(entry) = shared.lock().subscriptions.get_mut(name) {
        entry.halted = Some(halted.clone());
    }
    Error::other(halted)
}

/// A subscription that goes on, or why it does not.
fn active<'s>(state: &'s mut State, name: &str) -> Result<&'s mut Entry> {
    let entry = entry(state, name)?;
    match &entry.halted {
        Some(halted) => Err(Error::other(halted.clone())),
        None if entry.paused => Err(Error::paused_subscription(name)),
        None => Ok(entry),
    }
}

fn entry<'s>(state: &'s mut State, name: &str) -> Result<&'s mut Entry> {
    state
        .subscriptions
        .get_mut(name)
        .ok_or_else(|| Error::unknown_subscription(name))
}
