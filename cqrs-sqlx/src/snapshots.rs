//! Snapshots of event-sourced aggregates: made of the log and written after the commit that made them
//! due, while nobody waits.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cqrs_core::mapping::{ColumnType, Table, Value};
use cqrs_core::sourced::DueSnapshot;
use cqrs_core::staging::StagedWrite;
use cqrs_core::{Result, TenantId};
use tokio::sync::watch;
use tracing::Instrument;

use crate::backend::{Backend, Parameter};
use crate::store::Shared;

/// How many aggregates may wait. What finds no room is due again with the next save.
const MOST: usize = 1000;

/// The snapshots of a store that are to be written.
pub(crate) struct Snapshots {
    queue: Mutex<Queue>,
    /// Up to which of the [requests](Queue::requests) all are done with.
    done: watch::Sender<u64>,
}

#[derive(Default)]
struct Queue {
    /// One for each aggregate, however often it became due meanwhile.
    waiting: HashMap<(&'static str, String), Due>,
    requests: u64,
    /// One task writes all: they are not to take the connections from the commands.
    is_running: bool,
    /// The types of which one could not be written: it is said once.
    failed: HashSet<&'static str>,
}

/// A snapshot that a write has made due.
pub(crate) struct Due {
    pub(crate) table: &'static Table,
    pub(crate) aggregate_type: &'static str,
    pub(crate) aggregate_id: String,
    tenant: Option<TenantId>,
    pub(crate) snapshot: DueSnapshot,
}

impl Due {
    /// Those that these writes make due.
    pub(crate) fn of<'w>(writes: impl Iterator<Item = &'w StagedWrite>) -> Vec<Self> {
        let due = writes.filter_map(|write| {
            Some(Self {
                snapshot: write.snapshot?,
                table: write.table,
                aggregate_type: write.aggregate_type,
                aggregate_id: write.aggregate_id.clone(),
                tenant: write.tenant.clone(),
            })
        });
        due.collect()
    }
}

impl Snapshots {
    /// Has snapshots of a commit that is done written, in a task of their own. One that cannot be
    /// written is given up: the next save finds that it is due.
    pub(crate) fn write<B: Backend>(shared: &Arc<Shared<B>>, due: Vec<Due>) {
        if due.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut queue = shared.snapshots.lock();
        for due in due {
            let aggregate = (due.aggregate_type, due.aggregate_id.clone());
            if queue.waiting.len() < MOST || queue.waiting.contains_key(&aggregate) {
                queue.waiting.insert(aggregate, due);
            }
        }
        queue.requests += 1;
        if !std::mem::replace(&mut queue.is_running, true) {
            let writer = Writer(Some(Arc::clone(shared)));
            runtime.spawn(writer.run().instrument(tracing::debug_span!("snapshots")));
        }
    }

    /// Waits until what is due now is written.
    pub(crate) async fn settled(&self) {
        let requests = self.lock().requests;
        let mut done = self.done.subscribe();
        // It fails only where the sender is gone, which is here.
        let _ = done.wait_for(|done| *done >= requests).await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            done: watch::Sender::new(0),
        }
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

/// The task, until it has nothing to do. Where it ends before, with its runtime, what is due is given
/// up.
struct Writer<B: Backend>(Option<Arc<Shared<B>>>);

impl<B: Backend> Writer<B> {
    async fn run(mut self) {
        while let Some(shared) = self.0.clone() {
            let (waiting, requests) = {
                let mut queue = shared.snapshots.lock();
                (std::mem::take(&mut queue.waiting), queue.requests)
            };
            for due in waiting.into_values() {
                if let Err(error) = write(&shared, &due).await {
                    let aggregate = due.aggregate_type;
                    if shared.snapshots.lock().failed.insert(aggregate) {
                        tracing::warn!(%error, aggregate, "a snapshot was not written");
                    } else {
                        tracing::debug!(%error, aggregate, "a snapshot was not written");
                    }
                }
            }
            shared.snapshots.done.send_replace(requests);
            let mut queue = shared.snapshots.lock();
            if queue.waiting.is_empty() {
                queue.is_running = false;
                self.0 = None;
            }
        }
    }
}

impl<B: Backend> Drop for Writer<B> {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            let mut queue = shared.snapshots.lock();
            queue.waiting.clear();
            queue.is_running = false;
            shared.snapshots.done.send_replace(queue.requests);
        }
    }
}

async fn write<B: Backend>(shared: &Arc<Shared<B>>, due: &Due) -> Result<()> {
    let Some(taken) = crate::sourced::take_snapshot(shared, due).await? else {
        return Ok(());
    };
    let tenant = due.tenant.as_ref().map(TenantId::as_str);
    let tenant = tenant.map_or(Value::Null, |tenant| Value::Text(tenant.to_owned()));
    let parameters = [
        Parameter::text(due.aggregate_type),
        Parameter::text(due.aggregate_id.as_str()),
        Parameter::new(ColumnType::Text, tenant),
        Parameter::int(i64::try_from(taken.version).unwrap_or(i64::MAX)),
        Parameter::text(due.snapshot.shape()),
        Parameter::text(taken.state),
    ];
    let sql = crate::sourced::replace_snapshot();
    crate::projector::execute(shared, &sql, &parameters)
        .await
        .map(drop)
}
