//! Which aggregate types are event-sourced: retention runs without their code, and an aggregate that
//! was moved over has events that were written while it was a row.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cqrs_core::mapping::RowSource;
use cqrs_core::staging::StagedWrite;
use cqrs_core::{Error, Result, TenantScope};

use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;
use crate::{projector, retention, verify};

const INSERT: &str =
    "INSERT INTO cqrs_sourced_type (aggregate_type) VALUES ($1) ON CONFLICT DO NOTHING";

/// The types that this process has noted in the database, or tried to.
#[derive(Debug, Default)]
pub(crate) struct SourcedTypes(Mutex<HashSet<&'static str>>);

impl SourcedTypes {
    /// The event-sourced types among these writes that are not noted yet.
    pub(crate) fn unknown<'w>(
        &self,
        writes: impl Iterator<Item = &'w StagedWrite>,
    ) -> Vec<&'static str> {
        let mut unknown = Vec::new();
        for write in writes.filter(|write| write.is_sourced() && !write.is_check()) {
            if !unknown.contains(&write.aggregate_type)
                && !self.lock().contains(write.aggregate_type)
            {
                unknown.push(write.aggregate_type);
            }
        }
        unknown
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes types after a commit that appended to them, and after all that follows from it: whoever goes
/// away meanwhile has missed nothing of it. What [`verify`] has noted before costs nothing
/// here. One commit does it; others do not wait for that, and where it is given up, the next one tries
/// again. One that cannot be noted is said once, and is no matter of later commits.
pub(crate) async fn note<B: Backend>(shared: &Arc<Shared<B>>, types: Vec<&'static str>) {
    for aggregate_type in types {
        if !shared.sourced_types.lock().insert(aggregate_type) {
            continue;
        }
        let mut noting = Noting {
            types: &shared.sourced_types,
            given_up: Some(aggregate_type),
        };
        let parameters = [Parameter::text(aggregate_type)];
        if let Err(error) = projector::execute(shared, &INSERT.into(), &parameters).await {
            tracing::warn!(%error, aggregate_type, "an event-sourced type was not noted");
        }
        noting.given_up = None;
    }
}

/// The note of a type, which is taken back where it is given up.
struct Noting<'t> {
    types: &'t SourcedTypes,
    given_up: Option<&'static str>,
}

impl Drop for Noting<'_> {
    fn drop(&mut self) {
        if let Some(aggregate_type) = self.given_up {
            self.types.lock().remove(aggregate_type);
        }
    }
}

/// Notes types at start-up, and looks whether they are whole.
pub(crate) async fn verify<B: Backend>(
    shared: &Arc<Shared<B>>,
    types: impl Iterator<Item = &'static str>,
) -> Result<()> {
    let mut differences = Vec::new();
    for aggregate_type in types {
        // Who may only read can start where somebody else has noted it.
        if !is_noted(shared, aggregate_type).await? {
            insert(shared, aggregate_type).await?;
        }
        shared.sourced_types.lock().insert(aggregate_type);
        let sql = "SELECT position FROM cqrs_removed WHERE aggregate_type = $1";
        for position in numbers(shared, sql, aggregate_type).await? {
            differences.push(format!(
                "events of {aggregate_type:?} up to position {position} have left the log, and an \
                 event-sourced aggregate is made of all"
            ));
        }
    }
    verify::refuse("the log is not whole", differences)
}

async fn is_noted<B: Backend>(
    shared: &Arc<Shared<B>>,
    aggregate_type: &'static str,
) -> Result<bool> {
    let sql = "SELECT count(*) FROM cqrs_sourced_type WHERE aggregate_type = $1";
    let found = numbers(shared, sql, aggregate_type).await?;
    Ok(found.first().is_some_and(|count| *count > 0))
}

async fn numbers<B: Backend>(
    shared: &Arc<Shared<B>>,
    sql: &'static str,
    aggregate_type: &'static str,
) -> Result<Vec<i64>> {
    let select = Select {
        sql: sql.into(),
        parameters: vec![Parameter::text(aggregate_type)],
    };
    let place = Place::Confined(shared, &TenantScope::System);
    let read = |row: &B::Row| row.read_i64(0).map_err(Error::other);
    let found = reads::rows(place, &select, None, read).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Waits for a batch of retention under way, which knows nothing of the type: what it has removed is
/// seen afterwards, and the next one knows.
async fn insert<B: Backend>(shared: &Arc<Shared<B>>, aggregate_type: &'static str) -> Result<()> {
    let mut connection = projector::begin(shared).await?;
    let inserted = async {
        retention::hold::<B>(connection.get()).await?;
        let parameters = [Parameter::text(aggregate_type)];
        B::execute(connection.get(), &INSERT.into(), &parameters).await
    };
    let inserted = inserted.await;
    projector::end(connection, inserted).await.map(drop)
}
