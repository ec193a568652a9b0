//! Building the rows of an inline projection from the log.

use std::sync::Arc;

use super::state::Shared;
use super::transaction::InMemoryTransaction;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::Result;
use crate::projection::{ProjectionTransaction, RowProjection, Rows};
use crate::subscription::Subscription;

/// Builds the rows, and returns how many events were read.
pub(super) async fn run<P: RowProjection>(shared: &Arc<Shared>, projection: P) -> Result<u64> {
    let subscription = Subscription::new(Rows(projection));
    let _turn = shared.commits.take().await;
    loop {
        let (page, end) = {
            let state = shared.lock();
            let log = state.log().iter();
            let read = |event: &&Envelope<RawPayload>| subscription.reads(event.aggregate_type());
            (log.filter(read).cloned().collect::<Vec<_>>(), state.end())
        };
        let mut transaction = InMemoryTransaction::new(Arc::clone(shared));
        transaction.clear::<P::Row>().await?;
        let mark = Position::START;
        subscription.apply(&page, mark, &mut transaction).await?;
        let mut state = shared.lock();
        // Who commits without inline projections does not wait for the turn.
        if state.end() == end {
            transaction.apply(&mut state);
            return Ok(page.len() as u64);
        }
    }
}
