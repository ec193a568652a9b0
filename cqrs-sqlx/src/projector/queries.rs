//! Single statements on a connection of their own, repeated once where an idle connection turned
//! out to be dead. Only for those that may be repeated.

use std::sync::Arc;

use cqrs_core::{Result, TenantScope};

use crate::backend::{Backend, Parameter, Process, Proof};
use crate::connections::{Connection, Connections};
use crate::reads::is_unavailable;
use crate::store::Shared;

/// Runs a statement that may be repeated, across all tenants; how many rows it changed.
pub(crate) async fn execute<B: Backend>(
    shared: &Shared<B>,
    sql: &Arc<str>,
    parameters: &[Parameter],
) -> Result<u64> {
    execute_within(shared, &TenantScope::System, sql, parameters).await
}

/// As [`execute`], within a scope.
pub(crate) async fn execute_within<B: Backend>(
    shared: &Shared<B>,
    scope: &TenantScope,
    sql: &Arc<str>,
    parameters: &[Parameter],
) -> Result<u64> {
    let mut again = true;
    loop {
        let mut connection = shared.writers.acquire().await?;
        match execute_on(shared, connection.begin_work(), scope, sql, parameters).await {
            Ok(changed) => {
                connection.end_work();
                return Ok(changed);
            }
            Err(error) if is_unavailable(&error) => {
                discard(connection, &shared.writers);
                if !std::mem::take(&mut again) {
                    return Err(error);
                }
            }
            Err(error) => {
                connection.end_work();
                return Err(error);
            }
        }
    }
}

async fn execute_on<B: Backend>(
    shared: &Shared<B>,
    connection: &mut B::Connection,
    scope: &TenantScope,
    sql: &Arc<str>,
    parameters: &[Parameter],
) -> Result<u64> {
    if !shared.row_level_security {
        return B::execute(connection, sql, parameters).await;
    }
    B::begin(connection).await?;
    let changed = match shared.confine(connection, scope).await {
        Ok(()) => B::execute(connection, sql, parameters).await,
        Err(error) => Err(error),
    };
    match changed {
        Ok(changed) => B::commit(connection).await.map(|()| changed),
        Err(error) => {
            // Where even this fails, the connection is repaired or closed when it is given back.
            let _ = B::rollback(connection).await;
            Err(error)
        }
    }
}

/// Begins a transaction across all tenants.
pub(crate) async fn begin<B: Backend>(shared: &Shared<B>) -> Result<Connection<B>> {
    begin_with(shared, String::new()).await
}

/// As [`begin`], where all statements see one moment, at which these tables have their names.
pub(super) async fn begin_at_one_moment<B: Backend>(
    shared: &Shared<B>,
    tables: &[&str],
) -> Result<Connection<B>> {
    begin_with(shared, (B::DIALECT.one_moment)(tables)).await
}

async fn begin_with<B: Backend>(shared: &Shared<B>, script: String) -> Result<Connection<B>> {
    let mut again = true;
    loop {
        let mut connection = shared.writers.acquire().await?;
        match B::begin(connection.begin_work()).await {
            Ok(()) => {
                if !script.is_empty() {
                    B::execute_script(connection.get(), script).await?;
                }
                shared
                    .confine(connection.get(), &TenantScope::System)
                    .await?;
                return Ok(connection);
            }
            Err(error) if is_unavailable(&error) => {
                discard(connection, &shared.writers);
                if !std::mem::take(&mut again) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Begins a transaction across all tenants that reads, all of it from one moment.
pub(crate) async fn begin_reading<B: Backend>(shared: &Shared<B>) -> Result<Connection<B>> {
    begin_reading_with(shared, String::new()).await
}

/// As [`begin_reading`], where these tables keep their names until it ends.
pub(super) async fn begin_reading_at_one_moment<B: Backend>(
    shared: &Shared<B>,
    tables: &[&str],
) -> Result<Connection<B>> {
    begin_reading_with(shared, (B::DIALECT.one_moment)(tables)).await
}

async fn begin_reading_with<B: Backend>(
    shared: &Shared<B>,
    script: String,
) -> Result<Connection<B>> {
    let mut again = true;
    loop {
        let mut connection = shared.readers.acquire().await?;
        match B::begin_reading(connection.begin_work()).await {
            Ok(()) => {
                if !script.is_empty() {
                    B::execute_script(connection.get(), script).await?;
                }
                let system = &TenantScope::System;
                shared.confine(connection.get(), system).await?;
                return Ok(connection);
            }
            Err(error) if is_unavailable(&error) && again => {
                again = false;
                discard(connection, &shared.readers);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Ends a transaction that was [begun](begin): commits where all went well, else rolls back.
pub(crate) async fn end<B: Backend, T>(
    mut connection: Connection<B>,
    result: Result<T>,
) -> Result<T> {
    match result {
        Ok(done) => {
            B::commit(connection.get()).await?;
            connection.end_work();
            Ok(done)
        }
        Err(error) => {
            rollback(connection).await;
            Err(error)
        }
    }
}

/// Rolls back, so that the connection can be used again. Where that fails, it is closed, and the
/// server rolls back by itself.
pub(crate) async fn rollback<B: Backend>(mut connection: Connection<B>) {
    match B::rollback(connection.get()).await {
        Ok(()) => connection.end_work(),
        Err(error) => {
            tracing::debug!(%error, "a connection is closed because it could not be rolled back");
            connection.discard();
        }
    }
}

/// Closes a broken connection and its idle neighbours, which probably are broken too.
pub(crate) fn discard<B: Backend>(connection: Connection<B>, connections: &Connections<B>) {
    connection.discard();
    connections.close_idle();
}

/// Has the database end what it does for a connection that was left in the middle of that, by a handler
/// or command that was interrupted. When this returns, its locks are free, or the log says why not: what
/// was begun would else go on, with the lock of what it is about, and its failure could not be recorded.
pub(super) async fn end_what_was_left<B: Backend>(
    shared: &Shared<B>,
    name: &str,
    process: Process,
) {
    let patience = shared.writers.patience();
    let ended = shared.backend.resolve(process, &[Proof::Nothing]);
    let error = match tokio::time::timeout(patience, ended).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it is not over after {patience:?}"),
    };
    tracing::warn!(
        subscription = name,
        error,
        "something was interrupted, and the database may still work on its statement"
    );
}
