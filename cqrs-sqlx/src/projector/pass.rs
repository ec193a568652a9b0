//! One pass of a worker: claim a segment with its page, apply it, commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cqrs_core::__private::catch_panic;
use cqrs_core::{
    Envelope, Error, FailurePolicy, Position, RawPayload, Result, StoreErrorKind, Subscription,
};
use tokio::time::Instant;
use tracing::Instrument;

use super::building;
use super::checkpoint;
use super::claim::{Claim, ClaimSql, Wanted, Which};
use super::dead_letters;
use super::errors::is_transient;
use super::narrow::Narrow;
use super::pace::RetryDelays;
use super::queries;
use super::register;
use super::segments;
use super::transaction::{More, SqlTransaction};
use super::turns::{Turn, Turns, View};
use super::unlocked::{NextPage, must_claim};
use super::wake::Known;
use crate::backend::{Backend, Proof};
use crate::connections::Connection;
use crate::metrics;
use crate::reads::is_unavailable;
use crate::store::Shared;

/// What a pass came to.
#[derive(Debug)]
pub(super) enum Pass {
    /// A checkpoint moved, over this many events that the subscription reads.
    Moved { events: u64 },
    /// The page failed. The next pass applies less, to find the event that is to blame.
    Narrowed,
    /// A failure was recorded, or the event was parked or skipped. Other segments may go on.
    Failed,
    /// Every checkpoint is at the horizon; parked events are replayed after this time.
    UpToDate { replay: Option<Duration> },
    /// Somebody else was faster with the page. Other segments may go on.
    Overtaken,
    /// Other workers are at whatever there is to do.
    Elsewhere,
    /// An event failed before, and this much of the delay is left.
    Delayed(Duration),
    /// What is left to do is halted, or paused.
    Halted,
    /// There is nothing to build, or the rows are of another version of the projection.
    Absent,
}

/// How often the time of a pass is doubled at most.
const MOST_GIVEN_UP: u32 = 10;

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
    given_up: u32,
    /// The page behind the last one.
    pub(super) ahead: Option<NextPage>,
    /// Which segments the workers of this process are at.
    pub(super) turns: Arc<Turns>,
    /// Its number among them.
    pub(super) place: i64,
    /// The segment in which it looks for an event that fails.
    held: Option<Turn>,
    /// Where all segments stand at least, and when the next replay is, where nothing but the horizon
    /// keeps them from going on. Other processes may have moved them.
    known: Option<(Position, Option<Instant>)>,
    /// How far the next pass goes, where those rows that are to be exchanged have come further than the
    /// horizon.
    pub(super) further: Option<Position>,
    /// Whether there were several segments at the last look, and not all stood still for good.
    is_split: bool,
    /// Whether what comes may be of a segment that this worker would find, as of the last look.
    may_find_more: bool,
    /// Whether the last page was full, so that there may be more.
    had_more: bool,
    /// Where to look for an event that fails.
    pub(super) narrow: Option<Narrow>,
    /// Whether the last pass was a replay: then a page comes first, if there is one.
    replayed: bool,
    /// The aggregate whose parked events are replayed one by one.
    pub(super) one_by_one: Option<dead_letters::Aggregate>,
    /// A transaction in which nothing was done yet. Never locked: connections are not `Sync`.
    begun: Mutex<Option<Connection<B>>>,
}

/// Why a page was not applied.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the handler was interrupted, so that the connection may be in the middle of
    /// something: it panicked, or took too long.
    pub(super) interrupted: bool,
    /// Whether it took too long.
    pub(super) timed_out: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            interrupted: false,
            timed_out: false,
        }
    }
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

    /// Runs one pass up to the horizon.
    ///
    /// # Errors
    ///
    /// Those that are not the handlers': the database is away, or gave up on the transaction.
    /// Nothing was applied, and no attempt is counted. After a commit whose answer was lost the
    /// page may be applied together with its checkpoint; the next pass reads which.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future rolls the page back.
    pub(super) async fn run_once(&mut self, horizon: Position) -> Result<Pass> {
        let horizon = self.further.take().unwrap_or(horizon).max(horizon);
        let writers = self.shared.writers.clone();
        // Handlers that take too long are stopped, and what remains takes no time, but for a page of
        // few among many events: so it gets twice as long each time.
        let patience = self.rules.deadline.saturating_mul(2);
        let patience = patience.saturating_add(writers.patience().saturating_mul(2));
        let patience = patience.saturating_mul(1 << self.given_up);
        let Ok(pass) = tokio::time::timeout(patience, self.pass(horizon)).await else {
            self.given_up = (self.given_up + 1).min(MOST_GIVEN_UP);
            self.doubt();
            return Err(writers.no_answer_within(patience));
        };
        self.given_up = 0;
        let pass = pass?;
        if matches!(pass, Pass::Moved { events: 1.. }) {
            self.shared.advanced.applied(self.name());
        }
        let caught_up = match &pass {
            Pass::UpToDate { .. } => true,
            Pass::Moved { .. } => !self.had_more,
            _ => false,
        };
        if self.builds && caught_up && self.switch(horizon).await? {
            self.doubt();
            return Ok(match pass {
                Pass::Moved { .. } => pass,
                _ => Pass::Absent,
            });
        }
        Ok(match pass {
            Pass::UpToDate { .. } if self.further.is_some() => Pass::Narrowed,
            pass => pass,
        })
    }

    async fn pass(&mut self, horizon: Position) -> Result<Pass> {
        if let Some(pass) = self.nothing_to_do(horizon) {
            (self.ahead, self.held) = (None, None);
            if let Some(begun) = self.begun().take() {
                queries::rollback(begun).await;
            }
            return Ok(pass);
        }
        if !B::DIALECT.claims_in_one || self.builds && !self.had_more {
            // Without row locks a claim takes the lock of all writers, and mostly there is nothing
            // to build: so look first.
            if let Some(pass) = self.look(horizon).await? {
                return Ok(pass);
            }
        }
        if self.goes_unlocked()
            && self.begun().is_none()
            && let Some(pass) = self.pass_unlocked(horizon).await?
        {
            return Ok(pass);
        }
        self.ahead = None;
        let held = self.held.take();
        let mut connection = match self.begun().take() {
            Some(begun) => begun,
            None => queries::begin(&self.shared).await?,
        };
        let mut wanted = self.wanted(horizon);
        let mut claim = self.claims.claim::<B>(connection.get(), &wanted).await;
        if let (Ok(None), Some(others)) = (&claim, self.others(horizon)) {
            wanted = others;
            claim = self.claims.claim::<B>(connection.get(), &wanted).await;
        }
        let claim = match claim {
            Ok(claim) => claim,
            Err(error) => return Err(self.abandon(connection, error).await),
        };
        let Some(claim) = claim else {
            queries::rollback(connection).await;
            let narrowed = self.narrow.is_some();
            let pass = self.look(horizon).await?;
            if narrowed && self.narrow.is_none() {
                return Ok(Pass::Narrowed);
            }
            return Ok(pass.unwrap_or(Pass::Elsewhere));
        };
        if let Err(error) = self.check_split(&claim) {
            return Err(self.abandon(connection, error).await);
        }
        let narrow = self.narrow.as_ref();
        let is_another = narrow.is_some_and(|narrow| narrow.segment != claim.segment);
        // A turn that was kept is of the segment in which an event is looked for.
        let held = held.filter(|_| !is_another);
        self.claims_only = must_claim(&claim);
        // Who goes without a lock does not look at it meanwhile.
        let turn = held.or_else(|| self.take(claim.segment.number, &wanted.which));
        // By turns, so that replays that are due again and again do not hold up the others.
        let moves = claim.to > claim.from;
        self.replayed = claim.is_due && !(self.replayed && moves);
        if self.replayed {
            queries::rollback(connection).await;
            return self.replay(claim.segment).await;
        }
        self.narrow = self.narrow.take().filter(|narrow| {
            let is_elsewhere = narrow.segment != claim.segment;
            is_elsewhere || narrow.is_about(claim.segment, claim.from)
        });
        let pass = self.work(connection, claim).await;
        if let (Some(turn), Ok(Pass::Moved { .. })) = (&turn, &pass) {
            turn.won();
        }
        self.hold(turn.filter(|_| !is_another));
        pass
    }

    /// # Errors
    ///
    /// `Usage` where the segment is one of several, which a newer release has brought, and the handlers
    /// of this one do not say that they may be split: two of them would change the same rows.
    pub(super) fn check_split(&self, claim: &Claim) -> Result<()> {
        if claim.segment.of > 1 && !self.subscription.is_splittable() {
            return Err(register::not_splittable(self.subscription.name()));
        }
        Ok(())
    }

    fn take(&self, segment: i64, which: &Which) -> Option<Turn> {
        if !self.may_go_unlocked() {
            return None;
        }
        match which {
            Which::Furthest(view) => self.turns.take(segment, view),
            Which::Named(_) => {
                let view = self.turns.view(self.place, Instant::now().into_std());
                self.turns.take(segment, &view)
            }
        }
    }

    /// Keeps the turn while the event is looked for that fails.
    pub(super) fn hold(&mut self, turn: Option<Turn>) {
        self.held = turn.filter(|_| self.narrow.is_some());
    }

    fn begun(&mut self) -> &mut Option<Connection<B>> {
        let begun = self.begun.get_mut();
        begun.unwrap_or_else(PoisonError::into_inner)
    }

    fn nothing_to_do(&self, horizon: Position) -> Option<Pass> {
        let (position, replay) = self.known?;
        let left = replay.map(|at| at.saturating_duration_since(Instant::now()));
        let idle = position >= horizon && left.is_none_or(|left| !left.is_zero());
        idle.then_some(Pass::UpToDate { replay: left })
    }

    fn wanted(&self, horizon: Position) -> Wanted {
        let (most, which) = match &self.narrow {
            Some(narrow) => (narrow.most(), Which::Named(narrow.segment.number)),
            None if self.may_go_unlocked() => {
                let view = self.turns.view(self.place, Instant::now().into_std());
                (self.rules.page_size, Which::Furthest(view))
            }
            None => (self.rules.page_size, Which::Furthest(View::whole())),
        };
        Wanted {
            horizon,
            most,
            which,
        }
    }

    /// What to claim where another worker has the segment in which an event is looked for: any other.
    fn others(&self, horizon: Position) -> Option<Wanted> {
        let segment = self.narrow.as_ref()?.segment;
        if segment.of == 1 {
            return None;
        }
        let mut view = self.turns.view(self.place, Instant::now().into_std());
        view.except.push(segment.number);
        Some(Wanted {
            horizon,
            most: self.rules.page_size,
            which: Which::Furthest(view),
        })
    }

    /// Looks at the checkpoints without claiming one; what that says about the pass. `None`: there
    /// is something to claim.
    pub(super) async fn look(&mut self, horizon: Position) -> Result<Option<Pass>> {
        let (checkpoints, now) = checkpoint::all(&self.shared, self.name()).await?;
        let own = register::version(&self.subscription);
        let is_other = |first: &checkpoint::Checkpoint| own.is_some_and(|own| own != first.version);
        if checkpoints.first().map_or(self.builds, is_other) {
            return Ok(Some(Pass::Absent));
        }
        if checkpoints.is_empty() {
            // Someone removed the rows; new ones start from the beginning.
            tracing::warn!(
                subscription = self.name(),
                "the subscription had no checkpoint, it starts over"
            );
            register::ensure(&self.shared, &self.subscription).await?;
            return Ok(None);
        }
        // Where another worker has the segment, it may come to the same event.
        self.narrow = self.narrow.take().filter(|narrow| {
            checkpoints.iter().any(|one| {
                one.active && one.delay(now).is_none() && narrow.is_about(one.segment, one.position)
            })
        });
        self.is_split = checkpoints.len() > 1 && checkpoints.iter().any(|one| one.active);
        if segments::have_arrived(&checkpoints) {
            segments::settle(&self.shared, self.name()).await?;
            return Ok(Some(Pass::Narrowed));
        }
        let (mut halted, mut free, mut delay, mut replay) = (false, false, None, None);
        for checkpoint in &checkpoints {
            let end = checkpoint.barrier.map_or(horizon, |end| end.min(horizon));
            let behind = checkpoint.position < end;
            if !checkpoint.active {
                halted |= checkpoint.position < horizon;
                continue;
            }
            let until_replay = checkpoint.until_replay(now);
            if !behind && until_replay.is_none_or(|left| !left.is_zero()) {
                replay = replay.into_iter().chain(until_replay).min();
                continue;
            }
            match checkpoint.delay(now) {
                Some(left) => delay = delay.into_iter().chain([left]).min(),
                None => free = true,
            }
        }
        let pass = match (free, delay, halted) {
            (true, _, _) => None,
            (false, Some(delay), _) => Some(Pass::Delayed(delay)),
            (false, None, true) => Some(Pass::Halted),
            (false, None, false) => Some(Pass::UpToDate { replay }),
        };
        let changing = checkpoints.iter().any(|one| one.barrier.is_some());
        let others = self
            .turns
            .view(self.place, Instant::now().into_std())
            .except;
        self.may_find_more = !changing
            && checkpoints.iter().any(|one| {
                one.active && one.position >= horizon && !others.contains(&one.segment.number)
            });
        if let Some(least) = checkpoint::least(checkpoints) {
            let at_rest = matches!(pass, Some(Pass::UpToDate { .. })) && !changing;
            let at = replay.map(|left| Instant::now() + left);
            self.known = at_rest.then_some((least.position, at));
            self.tell(least.position, least.halted);
        }
        Ok(pass)
    }

    /// Tells those who wait for the subscription where it stands.
    pub(super) fn tell(&self, position: Position, halted: bool) {
        let known = Known { position, halted };
        self.shared.advanced.record(self.name(), known);
        self.shared.waits.moved(self.name(), known);
    }

    /// Applies a claimed page.
    async fn work(&mut self, connection: Connection<B>, mut claim: Claim) -> Result<Pass> {
        let mut transaction = self.transaction(connection);
        if claim.parks && !claim.page.is_empty() {
            match self.hold_back(&mut transaction, &mut claim).await {
                Ok(Ok(())) => {}
                Ok(Err(full)) => {
                    queries::rollback(transaction.into_connection()).await;
                    return self.parked_full(&claim, full).await;
                }
                Err(error) => {
                    return Err(self.abandon(transaction.into_connection(), error).await);
                }
            }
        }
        let result = self.apply_and_commit(&mut transaction, &claim).await;
        let mut connection = transaction.into_connection();
        match result {
            Ok(more) => {
                match more {
                    More::Begun => *self.begun() = Some(connection),
                    More::Ended => connection.end_work(),
                }
                self.moved(&claim);
                Ok(Pass::Moved {
                    events: claim.page.len() as u64,
                })
            }
            Err(failure) if is_transient(&failure.error) => {
                Err(self.abandon(connection, failure).await)
            }
            Err(failure) => {
                self.roll_back(connection, &failure).await;
                self.fail(&claim, failure).await
            }
        }
    }

    /// What was committed is known.
    pub(super) fn moved(&mut self, claim: &Claim) {
        self.had_more = claim.is_full;
        self.narrow = self.narrow.take().and_then(|narrow| {
            if narrow.segment == claim.segment {
                narrow.passed(claim.rows, claim.to)
            } else {
                Some(narrow)
            }
        });
        let position = claim.others.map_or(claim.to, |other| other.min(claim.to));
        if claim.is_changing {
            // Maybe it was the last to arrive.
            self.doubt();
        }
        if let Some((known, _)) = &mut self.known {
            *known = position;
        }
        self.tell(position, false);
        metrics::applied(self.name(), claim.page.len() as u64);
    }

    async fn apply_and_commit(
        &self,
        transaction: &mut SqlTransaction<B>,
        claim: &Claim,
    ) -> Result<More, Failure> {
        claim.check_readable()?;
        self.apply(transaction, &claim.page, claim.mark).await?;
        let goes_on = claim.is_full && !self.goes_unlocked();
        Ok(transaction.commit(goes_on).await?)
    }

    /// Has the handlers apply events.
    pub(super) async fn apply(
        &self,
        transaction: &mut SqlTransaction<B>,
        page: &[Envelope<RawPayload>],
        mark: Position,
    ) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (page.first(), page.last()) else {
            return Ok(());
        };
        let span = tracing::info_span!(
            "projection.page",
            subscription = self.name(),
            events = page.len(),
            first = first.position().0,
            last = last.position().0,
        );
        let deadline = self.rules.deadline;
        transaction.mark().await?;
        let applied =
            catch_panic(self.subscription.apply(page, mark, transaction)).instrument(span);
        match tokio::time::timeout(deadline, applied).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(panic)) => Err(Failure {
                error: panic,
                interrupted: true,
                timed_out: false,
            }),
            Err(_) => Err(self.too_late(transaction).await),
        }
    }

    /// The failure of a page that takes too long. Where it waits for a lock, somebody changes or indexes
    /// a table, and no event is to blame.
    pub(super) async fn too_late(&self, transaction: &mut SqlTransaction<B>) -> Failure {
        let deadline = self.rules.deadline;
        let process = transaction.process();
        let error = match self.shared.backend.give_up_waiting(&process).await {
            Ok(false) => Error::other(format!("the page was not applied within {deadline:?}")),
            Ok(true) => Error::store(
                StoreErrorKind::Contention,
                format!("the page waited for a lock of the database for {deadline:?}"),
            ),
            Err(error) => error,
        };
        Failure {
            error,
            interrupted: true,
            timed_out: true,
        }
    }

    /// Takes the events of parked aggregates out of the page, and parks them. The inner error is
    /// the place in the page of the first for which there is no room.
    pub(super) async fn hold_back(
        &self,
        transaction: &mut SqlTransaction<B>,
        claim: &mut Claim,
    ) -> Result<Result<(), usize>> {
        let connection = transaction.connection_below().await?;
        let parked = dead_letters::parked_aggregates::<B>(connection, self.name()).await?;
        let is_held: Vec<bool> = claim
            .page
            .iter()
            .map(|event| dead_letters::is_of(&parked, event))
            .collect();
        let held = is_held.iter().filter(|held| **held).count();
        if held > 0 {
            let count = dead_letters::count::<B>(connection, self.name()).await?;
            let room = usize::try_from(self.room().saturating_sub(count)).unwrap_or(usize::MAX);
            if held > room {
                let mut places = (0..).zip(&is_held).filter(|(_, held)| **held);
                let place = places.nth(room).map_or(0, |(place, _)| place);
                return Ok(Err(place));
            }
        }
        let page = std::mem::take(&mut claim.page);
        let (held, free): (Vec<_>, Vec<_>) =
            page.into_iter().zip(is_held).partition(|(_, held)| *held);
        claim.page = free.into_iter().map(|(event, _)| event).collect();
        let held: Vec<_> = held.into_iter().map(|(event, _)| event).collect();
        claim.held = held.iter().map(Envelope::position).collect();
        if !held.is_empty() {
            dead_letters::put_behind::<B>(connection, self.name(), &held).await?;
        }
        Ok(Ok(()))
    }

    /// How many events may be parked. What was parked under another policy still holds others back.
    pub(super) fn room(&self) -> u64 {
        match self.subscription.policy() {
            FailurePolicy::Park(parking) => parking.limit().into(),
            _ => cqrs_core::Parking::default().limit().into(),
        }
    }

    /// Gives up on a transaction through no fault of the handlers.
    pub(super) async fn abandon(
        &mut self,
        connection: Connection<B>,
        failure: impl Into<Failure>,
    ) -> Error {
        let failure = failure.into();
        if is_unavailable(&failure.error) {
            queries::discard(connection, &self.shared.writers);
        } else {
            self.roll_back(connection, &failure).await;
        }
        self.doubt();
        failure.error
    }

    /// Ends the transaction of a page that failed. When this returns, its locks are free: whatever the
    /// handler has begun and is not done with would else go on in the database, with the lock of the
    /// segment, and neither could the failure be written down nor the page be tried again.
    pub(super) async fn roll_back(&self, mut connection: Connection<B>, failure: &Failure) {
        if !failure.interrupted {
            return queries::rollback(connection).await;
        }
        let process = B::process(connection.get());
        // It is repaired or closed when it is given back.
        drop(connection);
        let patience = self.shared.writers.patience();
        let ended = self.shared.backend.resolve(process, &[Proof::Nothing]);
        let error = match tokio::time::timeout(patience, ended).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it is not over after {patience:?}"),
        };
        tracing::warn!(
            subscription = self.name(),
            error,
            "a handler was interrupted, and the database may still work on its statement"
        );
    }
}

impl<B: Backend> Drop for Worker<B> {
    fn drop(&mut self) {
        self.shared.advanced.forget(&self.name);
        self.shared.waits.forget(&self.name);
    }
}
