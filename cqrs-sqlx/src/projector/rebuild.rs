//! Building the rows of an inline projection from the log.

use std::sync::Arc;

use cqrs_core::integrity::Hashing;
use cqrs_core::{
    Entity, Position, ProjectionTransaction, Result, RowProjection, Rows, Subscription,
};

use super::operations::Operations;
use super::queries;
use super::snapshots::usage;
use super::transaction::SqlTransaction;
use crate::backend::{Backend, Parameter};
use crate::log::{EVENT_COLUMNS, read_verified};
use crate::reads::is_unavailable;
use crate::retention;
use crate::store::Shared;

/// How many events are in memory at once.
const PAGE: i64 = 1_000;

/// Builds the rows in one transaction, in which nobody else can commit; how many events were read.
///
/// What a commit under way has written before is waited for by the lock, so that everything that
/// is in the log is visible, and nothing comes at a lower position.
pub(crate) async fn rebuild_inline<B: Backend, P: RowProjection>(
    shared: &Arc<Shared<B>>,
    projection: P,
) -> Result<u64> {
    run(shared, projection, None).await
}

impl<B: Backend> Operations<B> {
    /// As [`rebuild_inline`](cqrs_core::Store::rebuild_inline) of the store, with a record; and over
    /// [gaps](Self::despite_gaps), where that is said.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn rebuild_inline<P: RowProjection>(&self, projection: P) -> Result<u64> {
        run(&self.shared, projection, Some(self)).await
    }
}

async fn run<B: Backend, P: RowProjection>(
    shared: &Arc<Shared<B>>,
    projection: P,
    operation: Option<&Operations<B>>,
) -> Result<u64> {
    let connection = queries::begin(shared).await?;
    let mut transaction = SqlTransaction::new(Arc::clone(shared), connection);
    transaction.changing(P::Row::table().name());
    let built = build(&mut transaction, &shared.hashing, projection, operation).await;
    let (mut connection, _) = transaction.into_parts();
    match &built {
        Ok(_) => connection.end_work(),
        Err(error) if is_unavailable(error) => queries::discard(connection, &shared.writers),
        Err(_) => queries::rollback(connection).await,
    }
    built
}

async fn build<B: Backend, P: RowProjection>(
    transaction: &mut SqlTransaction<B>,
    hashing: &Hashing,
    projection: P,
    operation: Option<&Operations<B>>,
) -> Result<u64> {
    let subscription = Subscription::new(Rows(projection));
    let connection = transaction.connection_below().await?;
    if !B::DIALECT.lock_log.is_empty() {
        B::execute(connection, &B::DIALECT.lock_log.into(), &[]).await?;
    }
    if !operation.is_some_and(|operation| operation.despite_gaps)
        && let Some(gap) =
            retention::gap::<B>(connection, subscription.filter(), Position::START).await?
    {
        return Err(usage(format!(
            "the rows of inline projection {:?} cannot be built from the log: {gap}. Leave them, or \
             build them without these by `operations.despite_gaps().rebuild_inline(..)`",
            P::NAME
        )));
    }
    if let Some(operation) = operation {
        let record = ("rebuild_inline", String::new());
        operation.record(connection, P::NAME, record).await?;
    }
    transaction.clear::<P::Row>().await?;

    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM cqrs_event WHERE position > $1 ORDER BY position LIMIT $2"
    )
    .into();
    let (mut position, mut events) = (Position::START, 0);
    loop {
        let parameters = [Parameter::int(position.0), Parameter::int(PAGE)];
        let mut page = Vec::new();
        let connection = transaction.connection_below().await?;
        B::fetch(connection, &sql, &parameters, None, |row| {
            page.push(read_verified(hashing, row)?);
            Ok(())
        })
        .await?;
        let Some(last) = page.last() else { break };
        position = last.position();
        page.retain(|event| subscription.reads(event.aggregate_type()));
        events += page.len() as u64;
        subscription
            .apply(&page, Position::START, transaction)
            .await?;
    }
    B::commit(transaction.connection_below().await?).await?;
    Ok(events)
}
