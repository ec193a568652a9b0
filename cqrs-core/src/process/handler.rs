//! From a page of events to the state of instances, their commands and deadlines.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::manager::{Next, ProcessManager, Steps};
use super::rows::{self, ProcessRow, ProcessTask, SetDeadline, scope_text, to_json};
use super::tasks::DEADLINE_PASSED;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::event::EventSet;
use crate::mapping::AsJson;
use crate::projection::{ProjectionTransaction, RowAddress, not_clearable};
use crate::read_model::Owned;
use crate::store::BoxFuture;
use crate::subscription::{EventFilter, Handler};

/// Runs a manager as a handler of a subscription.
pub(crate) struct Handling<P> {
    manager: Arc<P>,
    filter: EventFilter,
}

/// The payload of the event that a deadline has passed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) instance: String,
    pub(super) deadline: String,
    pub(super) instance_id: Uuid,
    pub(super) number: i64,
}

/// Something that happened to an instance.
struct Step<'e, E> {
    raw: &'e Envelope<RawPayload>,
    instance: String,
    what: What<E>,
}

enum What<E> {
    Event { event: Envelope<E>, starts: bool },
    Passed(Passed),
}

/// The scope and the id of an instance.
pub(super) type Key = (String, String);

/// An instance while a page is applied.
pub(super) struct Open<S> {
    pub(super) row: ProcessRow,
    pub(super) state: S,
    pub(super) new_tasks: Vec<ProcessTask>,
    is_changed: bool,
}

impl<E> Step<'_, E> {
    fn key(&self) -> Key {
        (scope_text(self.raw.tenant()), self.instance.clone())
    }
}

impl<P: ProcessManager> Handling<P> {
    pub(crate) fn new(manager: Arc<P>) -> Self {
        let filter = EventFilter::of_set::<P::Event>().with_aggregate_type(P::NAME);
        Self { manager, filter }
    }

    /// The events that it reads.
    pub(crate) fn reads(&self) -> &EventFilter {
        &self.filter
    }

    /// What a page means to the manager.
    fn steps<'e>(&self, page: &'e [Envelope<RawPayload>]) -> Result<Vec<Step<'e, P::Event>>> {
        let mut steps = Vec::with_capacity(page.len());
        for raw in page.iter().filter(|raw| self.filter.wants(raw)) {
            if raw.aggregate_type() == P::NAME {
                steps.push(passed(P::NAME, raw)?);
                continue;
            }
            let decoded = P::Event::decode(raw).map_err(|reason| Error::Undecodable {
                position: raw.position(),
                reason,
            })?;
            let Some(event) = decoded.map(|event| raw.with_payload(event)) else {
                continue;
            };
            if let Some(instance) = self.manager.instance(&event) {
                check_id(P::NAME, &instance.id)?;
                let starts = instance.starts;
                steps.push(Step {
                    raw,
                    instance: instance.id,
                    what: What::Event { event, starts },
                });
            }
        }
        Ok(steps)
    }

    async fn run<T: ProjectionTransaction>(
        &self,
        page: &[Envelope<RawPayload>],
        transaction: &mut T,
    ) -> Result<()> {
        let steps = self.steps(page)?;
        if steps.is_empty() {
            return Ok(());
        }
        let mut open = load::<P, T>(&steps, transaction).await?;
        let mut cancelled = Vec::new();
        for step in &steps {
            self.apply(&mut open, step, &mut cancelled)?;
        }
        write::<P, T>(open, &cancelled, transaction).await
    }

    /// The instances that a page is about.
    pub(super) fn keys(&self, page: &[Envelope<RawPayload>]) -> Result<Vec<Key>> {
        Ok(self.steps(page)?.iter().map(Step::key).collect())
    }

    /// Applies a page to instances that are there.
    pub(super) fn handle(
        &self,
        page: &[Envelope<RawPayload>],
        open: &mut HashMap<Key, Open<P::State>>,
        cancelled: &mut Vec<(Uuid, i64)>,
    ) -> Result<()> {
        let steps = self.steps(page)?;
        steps
            .iter()
            .try_for_each(|step| self.apply(open, step, cancelled))
    }

    fn apply(
        &self,
        open: &mut HashMap<Key, Open<P::State>>,
        step: &Step<'_, P::Event>,
        cancelled: &mut Vec<(Uuid, i64)>,
    ) -> Result<()> {
        let (raw, key) = (step.raw, step.key());
        if let What::Event { starts: true, .. } = &step.what
            && !open.contains_key(&key)
        {
            open.insert(key.clone(), Open::start::<P>(&key, raw.occurred_at()));
        }
        let Some(instance) = open.get_mut(&key) else {
            return Ok(());
        };
        if instance.row.completed_at.is_some() {
            return Ok(());
        }
        let mut next = Next::new(&step.instance, raw.occurred_at());
        match &step.what {
            What::Event { event, .. } => {
                self.manager
                    .on_event(&mut instance.state, event, &mut next)?;
            }
            What::Passed(passed) => {
                if !instance.takes(passed) {
                    return Ok(());
                }
                self.manager
                    .on_deadline(&mut instance.state, &passed.deadline, &mut next)?;
            }
        }
        let steps = next.steps;
        instance.follow::<P>(steps, raw, cancelled)
    }
}

impl<S: Default> Open<S> {
    fn start<P: ProcessManager>((scope, instance): &Key, at: DateTime<Utc>) -> Self {
        Self {
            row: ProcessRow {
                process: P::NAME.to_owned(),
                scope: scope.clone(),
                instance: instance.clone(),
                instance_id: Uuid::now_v7(),
                state: AsJson(serde_json::Value::Null),
                deadlines: AsJson(Default::default()),
                tasks: 0,
                started_at: at,
                completed_at: None,
            },
            state: S::default(),
            new_tasks: Vec::new(),
            is_changed: true,
        }
    }
}

impl<S: Serialize + DeserializeOwned> Open<S> {
    /// The same, by way of what would be stored.
    pub(super) fn copy<P: ProcessManager>(&self) -> Result<Self> {
        let state = to_json(P::NAME, &self.state)?;
        Ok(Self {
            row: self.row.clone(),
            state: rows::read_state(P::NAME, &self.row.instance, state)?,
            new_tasks: self.new_tasks.clone(),
            is_changed: self.is_changed,
        })
    }
}

impl<S> Open<S> {
    /// Whether a deadline that has passed still holds; if so, it does not any more.
    fn takes(&mut self, passed: &Passed) -> bool {
        let deadlines = &mut self.row.deadlines.0;
        let holds = self.row.instance_id == passed.instance_id
            && deadlines
                .get(&passed.deadline)
                .is_some_and(|set| set.number == passed.number);
        if holds {
            deadlines.remove(&passed.deadline);
        }
        holds
    }

    /// Does what was asked for.
    fn follow<P: ProcessManager>(
        &mut self,
        steps: Steps<P::Command>,
        cause: &Envelope<RawPayload>,
        cancelled: &mut Vec<(Uuid, i64)>,
    ) -> Result<()> {
        self.is_changed = true;
        for command in steps.commands {
            let command = AsJson(to_json(P::NAME, &command)?);
            let task = self.task(cause);
            self.new_tasks.push(ProcessTask {
                command: Some(command),
                ..task
            });
        }
        for (name, at) in steps.deadlines {
            check_id(P::NAME, &name)?;
            self.cancel(&name, cancelled);
            let Some(at) = at else { continue };
            let task = self.task(cause);
            let number = task.number;
            self.new_tasks.push(ProcessTask {
                deadline: Some(name.clone()),
                due_at: at,
                ..task
            });
            self.row
                .deadlines
                .0
                .insert(name, SetDeadline { number, at });
        }
        if steps.is_complete {
            self.row.completed_at = Some(cause.occurred_at());
            let names: Vec<String> = self.row.deadlines.0.keys().cloned().collect();
            names.iter().for_each(|name| self.cancel(name, cancelled));
        }
        Ok(())
    }

    fn cancel(&mut self, name: &str, cancelled: &mut Vec<(Uuid, i64)>) {
        let Some(set) = self.row.deadlines.0.remove(name) else {
            return;
        };
        let before = self.new_tasks.len();
        self.new_tasks.retain(|task| task.number != set.number);
        if self.new_tasks.len() == before {
            cancelled.push((self.row.instance_id, set.number));
        }
    }

    /// The next task: a command, which is due at once.
    fn task(&mut self, cause: &Envelope<RawPayload>) -> ProcessTask {
        self.row.tasks += 1;
        let metadata = cause.metadata();
        ProcessTask {
            instance_id: self.row.instance_id,
            number: self.row.tasks,
            process: self.row.process.clone(),
            scope: self.row.scope.clone(),
            instance: self.row.instance.clone(),
            deadline: None,
            command: None,
            due_at: DateTime::UNIX_EPOCH,
            attempts: 0,
            error: None,
            parked_at: None,
            correlation_id: metadata.correlation_id,
            causation_id: cause.event_id(),
            trace: metadata.trace.clone().map(AsJson),
        }
    }
}

/// The instances of a page, as far as they exist.
async fn load<P: ProcessManager, T: ProjectionTransaction>(
    steps: &[Step<'_, P::Event>],
    transaction: &mut T,
) -> Result<HashMap<Key, Open<P::State>>> {
    let mut keys: Vec<Key> = steps.iter().map(Step::key).collect();
    keys.sort_unstable();
    keys.dedup();
    let address = |(scope, instance): Key| {
        RowAddress::of::<ProcessRow>(None, &(P::NAME.to_owned(), scope, instance))
    };
    let addresses = keys.into_iter().map(address).collect::<Result<Vec<_>>>()?;
    let rows = transaction.load::<ProcessRow>(&addresses).await?;
    let open = rows.into_iter().map(|Owned { row, .. }| {
        let state = row.state.0.clone();
        let key = (row.scope.clone(), row.instance.clone());
        let open = Open {
            state: rows::read_state(P::NAME, &row.instance, state)?,
            row,
            new_tasks: Vec::new(),
            is_changed: false,
        };
        Ok((key, open))
    });
    open.collect()
}

async fn write<P: ProcessManager, T: ProjectionTransaction>(
    open: HashMap<Key, Open<P::State>>,
    cancelled: &[(Uuid, i64)],
    transaction: &mut T,
) -> Result<()> {
    let (mut rows, mut tasks) = (Vec::new(), Vec::new());
    let mut changed: Vec<_> = open.into_values().filter(|one| one.is_changed).collect();
    changed.sort_unstable_by_key(|one| one.row.instance_id);
    for one in changed {
        let mut row = one.row;
        row.state = AsJson(to_json(P::NAME, &one.state)?);
        rows.push(Owned { tenant: None, row });
        let own = one.new_tasks.into_iter();
        tasks.extend(own.map(|row| Owned { tenant: None, row }));
    }
    transaction.upsert(&rows).await?;
    transaction.upsert(&tasks).await?;
    let address = |key: &(Uuid, i64)| RowAddress::of::<ProcessTask>(None, key);
    let cancelled = cancelled.iter().map(address).collect::<Result<Vec<_>>>()?;
    transaction.delete::<ProcessTask>(&cancelled).await
}

fn passed<'e, E>(process: &str, raw: &'e Envelope<RawPayload>) -> Result<Step<'e, E>> {
    if raw.event_type() != DEADLINE_PASSED {
        let message = format!(
            "process manager {process:?} has the name of an aggregate: its deadlines are in the log \
             under that name, and {:?} is none",
            raw.event_type()
        );
        let error = StoreError::new(StoreErrorKind::Usage, message);
        return Err(Error::Store(error.of_page()));
    }
    let passed: Passed = serde_json::from_str(raw.payload().as_str())
        .map_err(|cause| Error::other(format!("no deadline of a process: {cause}")))?;
    Ok(Step {
        raw,
        instance: passed.instance.clone(),
        what: What::Passed(passed),
    })
}

fn check_id(process: &str, id: &str) -> Result<()> {
    if (1..=255).contains(&id.len()) && !id.contains('\0') {
        return Ok(());
    }
    Err(Error::store(
        StoreErrorKind::Usage,
        format!(
            "{id:?} of {process} is no id of an instance, and no name of a deadline: they are 1 to \
             255 bytes of text without NUL"
        ),
    ))
}

impl<T: ProjectionTransaction, P: ProcessManager> Handler<T> for Handling<P> {
    fn filter(&self) -> &EventFilter {
        &self.filter
    }

    fn has_side_effects(&self) -> bool {
        false
    }

    /// What it has set off cannot be taken back.
    fn clear<'a>(&'a self, _: &'a mut T) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(not_clearable(P::NAME)) })
    }

    fn apply<'a>(
        &'a self,
        page: &'a [Envelope<RawPayload>],
        _: Position,
        transaction: &'a mut T,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(page, transaction))
    }
}
