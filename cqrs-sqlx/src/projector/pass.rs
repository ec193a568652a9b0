//! One pass of a worker: claim a segment with its page, apply it, commit.

use std::time::Duration;

use cqrs_core::{Position, Result};
use tokio::time::Instant;

use super::apply::Failure;
use super::checkpoint;
use super::claim::{Claim, Wanted, Which};
use super::errors::is_transient;
use super::queries;
use super::register;
use super::segments;
use super::transaction::{More, SqlTransaction};
use super::turns::{Turn, View};
use super::unlocked::must_claim;
use super::worker::Worker;
use crate::backend::Backend;
use crate::connections::Connection;
use crate::metrics;

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

impl<B: Backend> Worker<B> {
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
        let (claim, which) = match self.claim(&mut connection, horizon).await {
            Ok(claimed) => claimed,
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
        let turn = held.or_else(|| self.take(claim.segment.number, &which));
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

    /// Claims what is wanted, or else another segment; and what was asked for.
    async fn claim(
        &self,
        connection: &mut Connection<B>,
        horizon: Position,
    ) -> Result<(Option<Claim>, Which)> {
        let wanted = self.wanted(horizon);
        let claim = self.claims.claim::<B>(connection.get(), &wanted).await?;
        match self.others(horizon).filter(|_| claim.is_none()) {
            None => Ok((claim, wanted.which)),
            Some(others) => {
                let claim = self.claims.claim::<B>(connection.get(), &others).await?;
                Ok((claim, others.which))
            }
        }
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
}
