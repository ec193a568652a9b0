//! What a worker of a subscription is, and knows.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cqrs_core::{Position, Subscription};
use tokio::time::Instant;

use super::building;
use super::claim::ClaimSql;
use super::dead_letters;
use super::narrow::Narrow;
use super::pace::RetryDelays;
use super::register;
use super::transaction::SqlTransaction;
use super::turns::{Turn, Turns};
use super::unlocked::NextPage;
use super::wake::Known;
use crate::backend::Backend;
use crate::connections::Connection;
use crate::store::Shared;

/// How pages are applied.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) page_size: u32,
    pub(super) delays: RetryDelays,
    /// How long the handlers may take for a page.
    pub(super) deadline: Duration,
}

/// Runs the passes of one subscription.
pub(super) struct Worker<B: Backend> {
    pub(super) shared: Arc<Shared<B>>,
    pub(super) subscription: Arc<Subscription<SqlTransaction<B>>>,
    pub(super) rules: Rules,
    /// The subscription whose checkpoint it works for: that under which it is built, where it
    /// builds.
    name: Arc<str>,
    /// Whether it builds the rows anew, beside those that are read.
    pub(super) builds: bool,
    pub(super) claims: Arc<ClaimSql>,
    /// Whether the next page has to be claimed, as the last one said.
    pub(super) claims_only: bool,
    /// How often a pass was given up since one was not.
    pub(super) given_up: u32,
    /// The page behind the last one.
    pub(super) ahead: Option<NextPage>,
    /// Which segments the workers of this process are at.
    pub(super) turns: Arc<Turns>,
    /// Its number among them.
    pub(super) place: i64,
    /// The segment in which it looks for an event that fails.
    pub(super) held: Option<Turn>,
    /// Where all segments stand at least, and when the next replay is, where nothing but the horizon
    /// keeps them from going on. Other processes may have moved them.
    pub(super) known: Option<(Position, Option<Instant>)>,
    /// How far the next pass goes, where those rows that are to be exchanged have come further than the
    /// horizon.
    pub(super) further: Option<Position>,
    /// Whether there were several segments at the last look, and not all stood still for good.
    pub(super) is_split: bool,
    /// Whether what comes may be of a segment that this worker would find, as of the last look.
    pub(super) may_find_more: bool,
    /// Whether the last page was full, so that there may be more.
    pub(super) had_more: bool,
    /// Where to look for an event that fails.
    pub(super) narrow: Option<Narrow>,
    /// Whether the last pass was a replay: then a page comes first, if there is one.
    pub(super) replayed: bool,
    /// The aggregate whose parked events are replayed one by one.
    pub(super) one_by_one: Option<dead_letters::Aggregate>,
    /// A transaction in which nothing was done yet. Never locked: connections are not `Sync`.
    begun: Mutex<Option<Connection<B>>>,
}

impl<B: Backend> Worker<B> {
    pub(super) fn new(
        shared: Arc<Shared<B>>,
        subscription: Arc<Subscription<SqlTransaction<B>>>,
        rules: Rules,
    ) -> Self {
        let name = subscription.name().into();
        Self::of(shared, subscription, rules, name, false)
    }

    /// Shares the segments with others of its process.
    pub(super) fn among(mut self, turns: &Arc<Turns>) -> Self {
        self.turns = Arc::clone(turns);
        self.place = turns.join();
        self
    }

    /// One that builds the rows of a subscription anew, as long as somebody has asked for that.
    pub(super) fn building(
        shared: Arc<Shared<B>>,
        subscription: Arc<Subscription<SqlTransaction<B>>>,
        rules: Rules,
    ) -> Self {
        let name = building::name_for(subscription.name()).into();
        Self::of(shared, subscription, rules, name, true)
    }

    fn of(
        shared: Arc<Shared<B>>,
        subscription: Arc<Subscription<SqlTransaction<B>>>,
        rules: Rules,
        name: Arc<str>,
        builds: bool,
    ) -> Self {
        let version = register::version(&subscription);
        Self {
            claims: Arc::new(ClaimSql::new::<B>(
                &name,
                subscription.filter(),
                version,
                &shared.hashing,
            )),
            claims_only: false,
            given_up: 0,
            ahead: None,
            turns: Arc::default(),
            place: 0,
            held: None,
            name,
            builds,
            shared,
            subscription,
            rules,
            known: None,
            further: None,
            is_split: false,
            may_find_more: false,
            had_more: false,
            narrow: None,
            replayed: false,
            one_by_one: None,
            begun: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn name_shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The transaction that its handlers write in.
    pub(super) fn transaction(&self, connection: Connection<B>) -> SqlTransaction<B> {
        SqlTransaction::new(Arc::clone(&self.shared), connection).building(self.builds)
    }

    pub(super) fn shared(&self) -> &Arc<Shared<B>> {
        &self.shared
    }

    /// Whether other segments may go on where one stands still.
    pub(super) fn is_split(&self) -> bool {
        self.is_split
    }

    /// Whether there is a segment with nothing to do which this worker would be at, were there
    /// something. Where others have all of them, another event is theirs.
    pub(super) fn may_find_more(&self) -> bool {
        self.may_find_more
    }

    /// Whether the last page was full, so that there may be more.
    pub(super) fn has_more(&self) -> bool {
        self.had_more
    }

    /// Forgets what is known of the checkpoints, so that the next pass asks the database.
    pub(super) fn doubt(&mut self) {
        self.known = None;
    }

    /// Tells those who wait for the subscription where it stands.
    pub(super) fn tell(&self, position: Position, halted: bool) {
        let known = Known { position, halted };
        self.shared.advanced.record(self.name(), known);
        self.shared.waits.moved(self.name(), known);
    }

    pub(super) fn begun(&mut self) -> &mut Option<Connection<B>> {
        let begun = self.begun.get_mut();
        begun.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Drop for Worker<B> {
    fn drop(&mut self) {
        self.shared.advanced.forget(&self.name);
        self.shared.waits.forget(&self.name);
    }
}
