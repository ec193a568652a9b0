//! Waiting for subscriptions that other processes run.
//!
//! Who waits says so: for which subscription, and where it is to come. A process that runs it
//! remembers that, and tells when it is there or has halted. So a projector that nobody waits for
//! tells nothing. Whoever is told asks the database: a message is a reason to ask, and no answer.
//!
//! Nothing relies on it. Who waits also asks from time to time, and less often where it was told of
//! the subscription before.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cqrs_core::Position;
use futures_util::future::select;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::backend::{Backend, Message, Topic};
use crate::connections::Connections;
use crate::listening::{Ear, listen};
use crate::notifier::{News, Notifier};
use crate::projector::{Backoff, Known};
use crate::store::Shared;

/// The longest pause between questions, where nothing is told.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The pauses between questions about a subscription that was told of before.
const FIRST_TOLD: Duration = Duration::from_millis(100);
const LONGEST_TOLD: Duration = Duration::from_secs(1);
/// How long it goes on to listen when nobody waits any more.
const LINGER: Duration = Duration::from_secs(30);
/// Where a halted subscription is said to be: whoever waits has to ask.
const HALTED: Position = Position(i64::MAX);

/// Who waits for what, here and elsewhere.
pub(crate) struct Waits<B: Backend> {
    notifier: Option<Arc<Notifier<B, Untold>>>,
    /// Where others wait for subscriptions, from the first position up to the last.
    awaited: Mutex<HashMap<String, (Position, Position)>>,
    waiters: Arc<Mutex<Waiters>>,
    /// How many there are; `None` when the store was closed.
    waiting: watch::Sender<Option<usize>>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl<B: Backend> Waits<B> {
    /// With the connection by which other processes are told, where they are to be.
    pub(crate) fn new(connection: Option<Connections<B>>) -> Self {
        let notifier = connection.map(|connection| Notifier::new(connection, Untold::default()));
        Self {
            notifier: notifier.map(Arc::new),
            awaited: Mutex::default(),
            waiters: Arc::default(),
            waiting: watch::Sender::new(Some(0)),
            listening: Mutex::default(),
        }
    }

    /// A subscription that this process runs stands here.
    pub(crate) fn moved(&self, name: &str, known: Known) {
        let position = if known.halted { HALTED } else { known.position };
        {
            let mut awaited = lock(&self.awaited);
            let Some((first, last)) = awaited.get_mut(name) else {
                return;
            };
            if position < *first {
                return;
            }
            if position < *last {
                *first = Position(position.0 + 1);
            } else {
                awaited.remove(name);
            }
        }
        self.tell(|untold| {
            let told = untold.arrived.entry(name.to_owned()).or_insert(position);
            *told = position.max(*told);
        });
    }

    /// Another process has said that it waits. What this one knows of the subscription is asked
    /// for after that was noted, so that nothing that moves meanwhile is missed. One that it does
    /// not run it may be about to run.
    ///
    /// Returns whether the database has to be asked instead: who waits was told before, and found
    /// that it was not so.
    pub(crate) fn asked(&self, content: &str, known: impl FnOnce(&str) -> Option<Known>) -> bool {
        let Some((name, range, in_vain)) = parse_awaited(content) else {
            return false;
        };
        join(lock(&self.awaited).entry(name.to_owned()), range);
        match known(name) {
            Some(_) if in_vain => true,
            Some(known) => {
                self.moved(name, known);
                false
            }
            None => false,
        }
    }

    /// This process does not run the subscription any more.
    pub(crate) fn forget(&self, name: &str) {
        lock(&self.awaited).remove(name);
    }

    /// Listens no more.
    pub(crate) fn close(&self) {
        self.waiting.send_replace(None);
    }

    fn tell(&self, add: impl FnOnce(&mut ToTell)) {
        let Some(notifier) = &self.notifier else {
            return;
        };
        {
            let mut untold = lock(&notifier.news().0);
            untold.count += 1;
            add(&mut untold);
        }
        notifier.signal();
    }

    /// Listens, as long as somebody waits and a little longer.
    fn listen(&self, backend: &B) {
        let mut listening = lock(&self.listening);
        if self.notifier.is_none() || listening.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (backend, waiters) = (backend.clone(), Arc::clone(&self.waiters));
        let waiting = self.waiting.subscribe();
        *listening = Some(tokio::spawn(async move {
            let hears = Hears(waiters);
            let listen = listen(&backend, &[Topic::Arrived], |ear| hears.hear(&ear));
            select(pin!(unneeded(waiting)), pin!(listen)).await;
        }));
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        self.waiting
            .send_modify(|waiting| *waiting = waiting.map(change));
    }
}

/// What others have to be told.
#[derive(Debug, Default)]
struct Untold(Mutex<ToTell>);

#[derive(Debug, Default)]
struct ToTell {
    count: u64,
    awaited: HashMap<String, (Position, Position)>,
    /// Those of which somebody was told that they are there, when they were not.
    in_vain: HashSet<String>,
    arrived: HashMap<String, Position>,
}

impl News for Untold {
    fn count(&self) -> u64 {
        lock(&self.0).count
    }

    fn take(&self) -> Vec<Message> {
        let mut untold = lock(&self.0);
        let in_vain = std::mem::take(&mut untold.in_vain);
        let awaited = untold.awaited.drain().map(|(name, (first, last))| Message {
            topic: Topic::Awaited,
            content: format!(
                "{first} {last} {} {name}",
                u8::from(in_vain.contains(&name))
            ),
        });
        let mut messages: Vec<_> = awaited.collect();
        messages.extend(untold.arrived.drain().map(|(name, position)| Message {
            topic: Topic::Arrived,
            content: format!("{position} {name}"),
        }));
        messages
    }
}

fn parse_awaited(content: &str) -> Option<(&str, (Position, Position), bool)> {
    let (first, rest) = parse_position(content)?;
    let (last, rest) = parse_position(rest)?;
    let (in_vain, name) = rest.split_once(' ')?;
    (first <= last).then_some((name, (first, last), in_vain == "1"))
}

fn parse_position(content: &str) -> Option<(Position, &str)> {
    let (position, rest) = content.split_once(' ')?;
    Some((Position(position.parse().ok()?), rest))
}

/// Widens a range, so that it holds another.
fn join(entry: Entry<'_, String, (Position, Position)>, (first, last): (Position, Position)) {
    let range = entry.or_insert((first, last));
    *range = (range.0.min(first), range.1.max(last));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those who wait here.
#[derive(Debug, Default)]
struct Waiters {
    /// While anything can be heard, the how manieth time that is.
    open: Option<u64>,
    opened: u64,
    /// By the subscription that they wait for.
    of: HashMap<String, Awaiting>,
    next: u64,
}

#[derive(Debug, Default)]
struct Awaiting {
    /// Whether it was told of when somebody last waited for it.
    is_told: bool,
    waiters: BTreeMap<(Position, u64), Arc<Notify>>,
}

impl Waiters {
    fn hear(&mut self, ear: &Ear) {
        match ear {
            Ear::Opened => {
                self.opened += 1;
                self.open = Some(self.opened);
                // They say once more that they wait.
                self.wake_all();
            }
            Ear::Heard(heard) => {
                let Some((position, name)) = parse_position(&heard.content) else {
                    return;
                };
                let Some(awaiting) = self.of.get_mut(name) else {
                    return;
                };
                awaiting.is_told = true;
                for waiter in awaiting.waiters.range(..=(position, u64::MAX)) {
                    waiter.1.notify_one();
                }
            }
            Ear::Closed => {
                self.open = None;
                // Their pauses are shorter from now on.
                self.wake_all();
            }
        }
    }

    fn wake_all(&self) {
        for waiter in self.of.values().flat_map(|of| of.waiters.values()) {
            waiter.notify_one();
        }
    }
}

/// Hears for those who wait, until it is dropped.
struct Hears(Arc<Mutex<Waiters>>);

impl Hears {
    fn hear(&self, ear: &Ear) {
        lock(&self.0).hear(ear);
    }
}

impl Drop for Hears {
    fn drop(&mut self) {
        self.hear(&Ear::Closed);
    }
}

/// Returns when nobody has waited for a while, or nobody will.
async fn unneeded(mut waiting: watch::Receiver<Option<usize>>) {
    loop {
        let idle = waiting.wait_for(|waiting| waiting.is_none_or(|waiting| waiting == 0));
        if !idle.await.is_ok_and(|waiting| waiting.is_some()) {
            return;
        }
        let needed = waiting.wait_for(|waiting| *waiting != Some(0));
        match tokio::time::timeout(LINGER, needed).await {
            Ok(Ok(waiting)) if waiting.is_some() => {}
            _ => return,
        }
    }
}

/// Somebody who waits for a subscription that another process may run, or of which this one knows
/// nothing yet.
pub(crate) struct Waiter<'a, B: Backend> {
    waits: &'a Waits<B>,
    name: &'a str,
    place: (Position, u64),
    woken: Arc<Notify>,
    /// Whether others run it, as far as is known.
    is_elsewhere: bool,
    /// Since when it has been listened to others, who know of this since then.
    told_others: Option<u64>,
    /// Whether it asks since it was woken.
    is_woken: bool,
    /// Whether it asks since a pause is over that should have been cut short.
    is_overdue: bool,
    pause: Backoff,
    told_pause: Backoff,
}

impl<'a, B: Backend> Waiter<'a, B> {
    /// Begins to wait until a subscription is at a position.
    pub(crate) fn begin(shared: &'a Shared<B>, name: &'a str, position: Position) -> Self {
        let (waits, woken, first) = (&shared.waits, Arc::default(), shared.wait_interval);
        let place = {
            let mut waiters = lock(&waits.waiters);
            let place = (position, waiters.next);
            waiters.next += 1;
            let awaiting = waiters.of.entry(name.to_owned()).or_default();
            awaiting.waiters.insert(place, Arc::clone(&woken));
            place
        };
        let waiter = Self {
            waits,
            name,
            place,
            woken,
            is_elsewhere: !shared.inline.is_subscribed(name),
            told_others: None,
            is_woken: false,
            is_overdue: false,
            pause: Backoff::new(first, LONGEST_PAUSE),
            told_pause: Backoff::new(first.max(FIRST_TOLD), LONGEST_TOLD),
        };
        waits.count(|waiting| waiting + 1);
        if waiter.is_elsewhere {
            waits.listen(&shared.backend);
        }
        waiter
    }

    /// Returns when it is time to ask again.
    pub(crate) async fn turn(&mut self) {
        let (open, is_told) = {
            let waiters = lock(&self.waits.waiters);
            let of = waiters.of.get(self.name);
            let open = waiters.open.filter(|_| self.is_elsewhere);
            (open, of.is_some_and(|of| of.is_told))
        };
        let is_known = open == self.told_others;
        if open.is_some() && (!is_known || self.is_woken) {
            self.told_others = open;
            let position = self.place.0;
            let name = self.name.to_owned();
            self.waits.tell(|untold| {
                if is_known {
                    // Who told that it is there forgot that it is waited for.
                    untold.in_vain.insert(name.clone());
                }
                join(untold.awaited.entry(name), (position, position));
            });
        }
        let (is_told, pause) = match open {
            Some(_) if is_told => (true, self.told_pause.next()),
            _ => (false, self.pause.next()),
        };
        let woken = tokio::time::timeout(pause, self.woken.notified()).await;
        self.is_woken = woken.is_ok();
        self.is_overdue = is_told && !self.is_woken;
    }

    /// The subscription is where it was waited for.
    pub(crate) fn arrived(&self) {
        if self.is_overdue
            && let Some(awaiting) = lock(&self.waits.waiters).of.get_mut(self.name)
        {
            awaiting.is_told = false;
        }
    }
}

impl<B: Backend> Drop for Waiter<'_, B> {
    fn drop(&mut self) {
        if let Some(awaiting) = lock(&self.waits.waiters).of.get_mut(self.name) {
            awaiting.waiters.remove(&self.place);
        }
        self.waits.count(|waiting| waiting.saturating_sub(1));
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::Sqlite;
    use crate::backend::Heard;

    fn at(position: i64) -> Known {
        Known {
            position: Position(position),
            halted: false,
        }
    }

    fn awaited(waits: &Waits<Sqlite>) -> Option<(i64, i64)> {
        let awaited = lock(&waits.awaited);
        awaited.get("a b").map(|(first, last)| (first.0, last.0))
    }

    #[test]
    fn what_others_wait_for_is_kept_until_it_is_there() {
        let waits = Waits::<Sqlite>::new(None);
        waits.asked("7 7 0 a b", |_| None);
        waits.asked("12 20 0 a b", |_| Some(at(3)));
        assert_eq!(awaited(&waits), Some((7, 20)));
        waits.moved("another", at(100));
        waits.moved("a b", at(6));
        assert_eq!(awaited(&waits), Some((7, 20)));
        waits.moved("a b", at(9));
        assert_eq!(awaited(&waits), Some((10, 20)));
        waits.asked("8 8 0 a b", |_| Some(at(9)));
        assert_eq!(awaited(&waits), Some((10, 20)), "that is told at once");
        waits.moved("a b", at(20));
        assert_eq!(awaited(&waits), None);
        waits.asked("21 21 0 a b", |_| None);
        let halted = Known {
            halted: true,
            ..at(0)
        };
        waits.moved("a b", halted);
        assert_eq!(awaited(&waits), None);
        let answered = [None, Some(at(30))].map(|known| waits.asked("30 30 0 a b", |_| known));
        assert_eq!((answered, awaited(&waits)), ([false; 2], None));
        assert!(waits.asked("30 30 1 a b", |_| Some(at(30))));
        assert_eq!(awaited(&waits), Some((30, 30)), "what was known is not so");
    }

    #[test]
    fn what_nobody_should_have_said_is_passed_over() {
        let waits = Waits::<Sqlite>::new(None);
        for content in [
            "",
            "a b",
            "1 a b",
            "x 1 0 a b",
            "9 1 0 a b",
            "99999999999999999999 1 0 a b",
            "1 1 a",
        ] {
            waits.asked(content, |_| None);
        }
        assert!(lock(&waits.awaited).is_empty());
        for content in ["", "a", "x a"] {
            lock(&waits.waiters).hear(&arrived(content));
        }
    }

    fn arrived(content: &str) -> Ear {
        Ear::Heard(Heard {
            topic: Topic::Arrived,
            content: content.to_owned(),
            teller: None,
        })
    }

    #[test]
    fn a_message_wakes_those_whose_position_was_reached() {
        let mut waiters = Waiters::default();
        let woken: Vec<_> = [3, 5, 5, 6].map(|_| Arc::new(Notify::new())).into();
        let awaiting = waiters.of.entry("a b".to_owned()).or_default();
        for ((place, woken), number) in [3, 5, 5, 6].into_iter().zip(&woken).zip(0..) {
            let place = (Position(place), number);
            awaiting.waiters.insert(place, Arc::clone(woken));
        }
        let awake = || -> Vec<bool> {
            let is_woken = |woken: &Arc<Notify>| {
                let mut notified = std::pin::pin!(woken.notified());
                notified.as_mut().enable()
            };
            woken.iter().map(is_woken).collect()
        };
        waiters.hear(&arrived("5 another"));
        assert_eq!(awake(), [false; 4]);
        waiters.hear(&arrived("5 a b"));
        assert_eq!(awake(), [true, true, true, false]);
        assert!(waiters.of["a b"].is_told);
        waiters.hear(&Ear::Opened);
        assert_eq!(awake(), [true; 4], "they say again that they wait");
        waiters.hear(&arrived(&format!("{HALTED} a b")));
        assert_eq!(awake(), [true; 4]);
        waiters.hear(&Ear::Closed);
        assert_eq!((awake(), waiters.open), (vec![true; 4], None));
    }
}
