//! Pages of handlers that write rows alone, without a transaction around them.
//!
//! One statement reads the checkpoint and the page behind it and locks nothing; the handler is
//! given the page; one statement writes its rows and moves the checkpoint, if the row of that is
//! still of the version that was read. So a page costs two statements, three where the handler
//! loads rows first, and while it is applied the next page is read, on another connection.
//!
//! Rows are loaded while the row of the checkpoint is of that version, on one snapshot: a crash of
//! the server may bring a version back, and a pooler may hide the crash.
//!
//! Whatever changes a checkpoint gives its row another version: another worker that was faster, a
//! reset, a pause, a change of the segments. Then nothing is written, and the page was applied in
//! vain; [`turns`](super::turns) keeps that rare.
//!
//! What holds back parked events has to see them under the lock, so it claims. So does who is
//! behind a pooler: whether a page that takes too long waits for a lock, and no event is to blame, is
//! known of transactions alone there.

use std::sync::Arc;
use std::time::Instant;

use cqrs_core::{Position, Result};
use tokio::task::JoinSet;

use super::apply::Failure;
use super::checkpoint;
use super::claim::{Claim, Wanted, Which};
use super::errors::is_transient;
use super::pass::Pass;
use super::queries;
use super::transaction::{Outcome, SqlTransaction};
use super::turns::{Turn, View};
use super::worker::Worker;
use crate::backend::{Advance, Backend, RowVersion};
use crate::connections::Connection;
use crate::reads::is_unavailable;

/// How often a worker looks again where another of its process had the segment that it found.
const LOOKS: u32 = 3;

/// The next page of a segment, while it is read. Dropping it ends that.
pub(super) struct NextPage {
    /// The version of the row of the checkpoint there.
    seen: RowVersion,
    page: JoinSet<Option<Claim>>,
    turn: Turn,
}

impl<B: Backend> Worker<B> {
    /// Whether pages may be applied without a lock, for all that is known of the subscription.
    pub(super) fn may_go_unlocked(&self) -> bool {
        !B::DIALECT.row_version.is_empty()
            && self.subscription.writes_rows_alone()
            && !self.shared.row_level_security
            && !self.shared.backend.is_pooled()
    }

    /// Whether the next page may be.
    pub(super) fn goes_unlocked(&self) -> bool {
        self.may_go_unlocked() && !self.claims_only && self.narrow.is_none()
    }

    /// One pass without a lock; `None` where the page has to be claimed.
    pub(super) async fn pass_unlocked(&mut self, horizon: Position) -> Result<Option<Pass>> {
        let (claim, turn) = match self.next_page().await {
            Some(next) => next,
            None => match self.take_turn(horizon).await? {
                Some(found) => found,
                None => return Ok(Some(self.look(horizon).await?.unwrap_or(Pass::Elsewhere))),
            },
        };
        if must_claim(&claim) {
            self.claims_only = true;
            return Ok(None);
        }
        self.work_unlocked(claim, turn, horizon).await.map(Some)
    }

    /// The page that was read ahead.
    async fn next_page(&mut self) -> Option<(Claim, Turn)> {
        let mut next = self.ahead.take()?;
        let mut claim = next.page.join_next().await?.ok()??;
        claim.seen = Some(next.seen);
        (claim.to > claim.from).then_some((claim, next.turn))
    }

    /// A segment that nobody of this process is at, with its page.
    async fn take_turn(&mut self, horizon: Position) -> Result<Option<(Claim, Turn)>> {
        for _ in 0..LOOKS {
            let view = self.turns.view(self.place, Instant::now());
            let Some(claim) = self.look_at_page(horizon, &view).await? else {
                break;
            };
            if let Some(turn) = self.turns.take(claim.segment.number, &view) {
                return Ok(Some((claim, turn)));
            }
        }
        Ok(None)
    }

    async fn look_at_page(&mut self, horizon: Position, view: &View) -> Result<Option<Claim>> {
        let wanted = Wanted {
            horizon,
            most: self.rules.page_size,
            which: Which::Furthest(view.clone()),
        };
        let mut again = true;
        loop {
            let mut connection = self.shared.writers.acquire().await?;
            let found = self
                .claims
                .look::<B>(connection.begin_work(), &wanted)
                .await;
            match found {
                Ok(claim) => {
                    connection.end_work();
                    return Ok(claim);
                }
                Err(error) if is_unavailable(&error) && std::mem::take(&mut again) => {
                    queries::discard(connection, &self.shared.writers);
                }
                Err(error) => return Err(self.give_up(connection, error)),
            }
        }
    }

    async fn work_unlocked(
        &mut self,
        claim: Claim,
        mut turn: Turn,
        horizon: Position,
    ) -> Result<Pass> {
        let Some(seen) = claim.seen.clone() else {
            return Ok(Pass::Narrowed);
        };
        self.check_split(&claim)?;
        let mut connection = self.shared.writers.acquire().await?;
        connection.begin_work();
        let goes_on = claim.is_full && turn.goes_on(claim.segment.of);
        let ahead = goes_on.then(|| self.read_ahead(&claim, horizon));
        let advance = Advance {
            sql: Arc::clone(&self.claims.advance_seen),
            is_seen: Arc::clone(&self.claims.is_seen),
            subscription: self.name_shared(),
            segment: claim.segment.number,
            position: claim.to,
            seen,
        };
        let shared = Arc::clone(&self.shared);
        let mut transaction =
            SqlTransaction::unlocked(shared, connection, advance).building(self.builds);
        let result = self.apply_unlocked(&mut transaction, &claim).await;
        let is_lost = transaction.is_lost();
        let mut connection = transaction.into_connection();
        match result {
            Ok(Outcome::Committed(seen)) => {
                connection.end_work();
                turn.won();
                self.ahead = seen
                    .zip(ahead)
                    .map(|(seen, page)| NextPage { seen, page, turn });
                self.moved(&claim);
                let events = claim.page.len() as u64;
                Ok(Pass::Moved { events })
            }
            Ok(Outcome::Lost) => self.overtaken(connection, &claim, &turn).await,
            Err(failure) if is_lost && !failure.interrupted => {
                self.overtaken(connection, &claim, &turn).await
            }
            Err(failure) if is_transient(&failure.error) => {
                Err(self.abandon(connection, failure).await)
            }
            Err(failure) => {
                self.roll_back(connection, &failure).await;
                let pass = self.fail(&claim, failure).await;
                self.hold(Some(turn));
                pass
            }
        }
    }

    /// The row of the checkpoint is not of the version that was read.
    async fn overtaken(
        &mut self,
        connection: Connection<B>,
        claim: &Claim,
        turn: &Turn,
    ) -> Result<Pass> {
        queries::rollback(connection).await;
        self.doubt();
        let (checkpoints, _) = checkpoint::all(&self.shared, self.name()).await?;
        let segment = checkpoints.iter().find(|one| one.segment == claim.segment);
        // An operator changes the row as well, and works on nothing.
        if segment.is_some_and(|segment| segment.position > claim.from) {
            turn.lost(Instant::now());
        }
        Ok(Pass::Overtaken)
    }

    async fn apply_unlocked(
        &self,
        transaction: &mut SqlTransaction<B>,
        claim: &Claim,
    ) -> Result<Outcome, Failure> {
        claim.check_readable()?;
        self.apply(transaction, &claim.page, claim.mark).await?;
        let deadline = self.rules.deadline;
        match tokio::time::timeout(deadline, transaction.commit_unlocked()).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(self.too_late(transaction).await),
        }
    }

    /// Begins to read the page behind this one, where there is a connection to spare.
    fn read_ahead(&self, claim: &Claim, horizon: Position) -> JoinSet<Option<Claim>> {
        let (shared, claims) = (Arc::clone(&self.shared), Arc::clone(&self.claims));
        let next = claim.next(horizon, self.rules.page_size);
        let mut ahead = JoinSet::new();
        ahead.spawn(async move {
            let mut connection: Connection<B> = shared.readers.acquire_spare().await?;
            let page = claims.look_ahead::<B>(connection.begin_work(), next).await;
            // Where that fails, whoever needs the page reads it and finds out why.
            let page = page.ok()?;
            connection.end_work();
            Some(page)
        });
        ahead
    }

    fn give_up(&mut self, connection: Connection<B>, error: cqrs_core::Error) -> cqrs_core::Error {
        if is_unavailable(&error) {
            queries::discard(connection, &self.shared.writers);
        }
        self.doubt();
        error
    }
}

/// Whether a page has to be claimed before it is applied.
pub(super) fn must_claim(claim: &Claim) -> bool {
    claim.parks || claim.is_due || claim.is_changing || claim.attempts > 0
}
