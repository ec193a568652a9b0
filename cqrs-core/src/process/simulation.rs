//! Instances without a store, for tests of applications.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::handler::{Handling, Key, Open};
use super::manager::ProcessManager;
use super::rows::scope_text;
use super::tasks::passed_payload;
use crate::context::TenantId;
use crate::envelope::{Envelope, RawPayload};
use crate::error::{Error, Result};
use crate::mapping::AsJson;

/// The instances of a manager, and the deadlines that they wait for.
pub(crate) struct Instances<P: ProcessManager> {
    handling: Handling<P>,
    open: HashMap<Key, Open<P::State>>,
}

/// A deadline that passes.
pub(crate) struct PassedDeadline {
    pub(crate) at: DateTime<Utc>,
    pub(crate) tenant: Option<TenantId>,
    pub(crate) id: String,
    pub(crate) payload: String,
}

impl<P: ProcessManager> Instances<P> {
    pub(crate) fn new(manager: P) -> Self {
        Self {
            handling: Handling::new(Arc::new(manager)),
            open: HashMap::new(),
        }
    }

    /// Handles an event; the commands that follow from it, as they come back from their JSON. An
    /// event that fails changes nothing.
    pub(crate) fn handle(&mut self, event: &Envelope<RawPayload>) -> Result<Vec<P::Command>> {
        let page = std::slice::from_ref(event);
        let keys = self.handling.keys(page)?;
        let mut before = Vec::new();
        for key in keys {
            let open = self.open.get(&key).map(Open::copy::<P>).transpose()?;
            before.push((key, open));
        }
        // There are no rows whose tasks would have to go.
        let mut cancelled = Vec::new();
        let handled = self.handling.handle(page, &mut self.open, &mut cancelled);
        if let Err(error) = handled {
            for (key, open) in before {
                match open {
                    Some(open) => self.open.insert(key, open),
                    None => self.open.remove(&key),
                };
            }
            return Err(error);
        }
        let mut commands = Vec::new();
        for instance in self.open.values_mut() {
            let issued = instance
                .new_tasks
                .extract_if(.., |task| task.command.is_some());
            commands.extend(issued.filter_map(|task| task.command));
        }
        let read = |AsJson(command)| {
            serde_json::from_value(command)
                .map_err(|cause| Error::other(format!("a command cannot be read: {cause}")))
        };
        commands.into_iter().map(read).collect()
    }

    /// Takes out the deadline that passes first, if it does by this time.
    pub(crate) fn pass(&mut self, until: DateTime<Utc>) -> Option<PassedDeadline> {
        let tasks = self.open.values().flat_map(|instance| &instance.new_tasks);
        let due = tasks.filter(|task| task.due_at <= until);
        let first = due.min_by_key(|task| (task.due_at, task.instance_id, task.number))?;
        let (instance, number) = (first.instance_id, first.number);
        let passed = PassedDeadline {
            at: first.due_at,
            tenant: TenantId::new(&first.scope).ok(),
            id: format!("{instance}/{number}"),
            payload: passed_payload(first, first.deadline.as_deref()?).ok()?,
        };
        for open in self.open.values_mut() {
            open.new_tasks
                .retain(|task| (task.instance_id, task.number) != (instance, number));
        }
        Some(passed)
    }

    /// What is remembered of an instance, and whether it has ended.
    pub(crate) fn state(
        &self,
        tenant: Option<&TenantId>,
        instance: &str,
    ) -> Option<(&P::State, bool)> {
        let open = self.open.get(&(scope_text(tenant), instance.to_owned()))?;
        Some((&open.state, open.row.completed_at.is_some()))
    }
}
