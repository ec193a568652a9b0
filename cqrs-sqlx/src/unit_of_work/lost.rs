//! Broken connections and lost answers.

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Error, Metadata, Result, StoreError, StoreErrorKind};

use crate::backend::{Backend, Committed, Process, Proof, Written};
use crate::connections::Connection;
use crate::reads::is_unavailable;
use crate::store::Shared;

/// How often a commit that was lost without a trace is sent again.
const RESENDS: u32 = 3;

/// Commits writes of a unit of work that has sent nothing.
pub(super) async fn commit<B: Backend>(
    shared: &Shared<B>,
    writes: &[StagedWrite],
    metadata: &Metadata,
) -> Result<Written> {
    let mut resends = 0;
    loop {
        let mut connection = shared.writers.acquire().await?;
        let process = B::process(connection.get());
        let committed = B::commit_writes(
            connection.begin_work(),
            &shared.statements,
            writes,
            metadata,
        )
        .await;
        let cause = match committed {
            Committed::Done(written) => {
                connection.end_work();
                return Ok(written);
            }
            Committed::Refused(error) => {
                if is_unavailable(&error) {
                    connection.discard();
                    shared.writers.close_idle();
                } else {
                    connection.end_work();
                }
                return Err(error);
            }
            Committed::Lost(cause) => cause,
        };
        connection.discard();
        shared.writers.close_idle();
        tracing::debug!(%cause, "a commit's answer was lost");
        if let Some(written) = resolve(shared, process, Proof::Events(writes)).await? {
            return Ok(written);
        }
        if resends == RESENDS {
            return Err(cause);
        }
        resends += 1;
    }
}

/// Ends a transaction in which a statement failed.
///
/// Where the connection broke, the server may not have noticed, and would keep the transaction's
/// locks from the next try: it is told.
pub(super) async fn broken<B: Backend>(
    shared: &Shared<B>,
    mut connection: Connection<B>,
    cause: Error,
) -> Error {
    let process = B::process(connection.get());
    let rolled_back = B::rollback(connection.get()).await;
    if !is_unavailable(&cause) && rolled_back.is_ok() {
        connection.end_work();
        return cause;
    }
    connection.discard();
    shared.writers.close_idle();
    if let Err(error) = resolve(shared, process, Proof::Nothing).await {
        tracing::debug!(%error, "the server may still hold the locks of a broken transaction");
    }
    cause
}

/// What became of a commit whose connection broke.
pub(super) async fn resolve<B: Backend>(
    shared: &Shared<B>,
    process: Process,
    proof: Proof<'_>,
) -> Result<Option<Written>> {
    let found = shared.backend.resolve(process, &[proof]).await;
    Ok(found.map_err(unknown)?.pop().flatten())
}

/// The error of a commit that may have happened.
pub(super) fn unknown(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = StoreError::new(
        StoreErrorKind::OutcomeUnknown,
        "the connection broke during a commit, and what became of it could not be found out",
    );
    Error::Store(error.with_source(cause))
}
