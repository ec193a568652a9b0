//! Writing snapshots after the commit that made them due, while nobody waits.

use std::fmt;
use std::sync::Arc;

use cqrs_core::TenantId;
use cqrs_core::mapping::{ColumnType, Value};
use cqrs_core::staging::StagedWrite;
use tokio::sync::{Mutex, watch};
use tracing::Instrument;

use crate::backend::{Backend, Parameter};
use crate::store::Shared;

/// The snapshots of a store that are being written.
pub(crate) struct Snapshots {
    /// How many commits have some.
    pending: watch::Sender<usize>,
    /// One is written at a time: they are not to take the connections from the commands.
    turn: Mutex<()>,
}

/// A snapshot, by whose it is.
pub(crate) struct Due([Parameter; 6]);

impl Due {
    /// The snapshots that these writes make due.
    pub(crate) fn of<'w>(writes: impl Iterator<Item = &'w StagedWrite>) -> Vec<Self> {
        let due = writes.filter_map(|write| {
            let snapshot = write.snapshot.as_ref()?;
            let tenant = write.tenant.as_ref().map(TenantId::as_str);
            let tenant = tenant.map_or(Value::Null, |tenant| Value::Text(tenant.to_owned()));
            Some(Self([
                Parameter::text(write.aggregate_type),
                Parameter::text(write.aggregate_id.as_str()),
                Parameter::new(ColumnType::Text, tenant),
                Parameter::int(i64::try_from(snapshot.version).unwrap_or(i64::MAX)),
                Parameter::text(snapshot.shape),
                Parameter::text(snapshot.state.as_str()),
            ]))
        });
        due.collect()
    }
}

impl Snapshots {
    /// Writes snapshots of a commit that is done, in a task of their own. One that cannot be written
    /// is given up: the next save finds that it is due.
    pub(crate) fn write<B: Backend>(shared: &Arc<Shared<B>>, due: Vec<Due>) {
        if due.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let pending = Pending::begin(shared);
        let task = async move {
            let shared = &pending.0;
            let _turn = shared.snapshots.turn.lock().await;
            let sql = crate::sourced::replace_snapshot();
            for Due(parameters) in due {
                let written = crate::projector::execute(shared, &sql, &parameters).await;
                if let Err(error) = written {
                    tracing::warn!(%error, "a snapshot was not written");
                }
            }
        };
        runtime.spawn(task.instrument(tracing::debug_span!("snapshots")));
    }

    /// Waits until nothing is being written.
    pub(crate) async fn settled(&self) {
        let mut pending = self.pending.subscribe();
        // It fails only where the sender is gone, which is here.
        let _ = pending.wait_for(|pending| *pending == 0).await;
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            pending: watch::Sender::new(0),
            turn: Mutex::default(),
        }
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

/// A task that is counted until it ends, also with the runtime.
struct Pending<B: Backend>(Arc<Shared<B>>);

impl<B: Backend> Pending<B> {
    fn begin(shared: &Arc<Shared<B>>) -> Self {
        shared
            .snapshots
            .pending
            .send_modify(|pending| *pending += 1);
        Self(Arc::clone(shared))
    }
}

impl<B: Backend> Drop for Pending<B> {
    fn drop(&mut self) {
        self.0
            .snapshots
            .pending
            .send_modify(|pending| *pending -= 1);
    }
}
