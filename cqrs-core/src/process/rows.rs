//! What the store keeps of process managers: the state of each instance, and what is to be done.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use uuid::Uuid;

use super::tasks::TaskFailure;
use crate::context::{RequestContext, TenantId, TenantScope, TraceContext};
use crate::error::{Error, Result};
use crate::mapping::{
    AsJson, ColumnError, ColumnValue, Entity, MappingError, RowCursor, RowSource, Table, Value,
};
use crate::read_model::ReadModel;

/// Writes what the derive of a read model would, which this crate can be built without.
macro_rules! row {
    (
        $(#[$attribute:meta])*
        $name:ident in $table:literal {
            keys { $($(#[$key_doc:meta])* $key:ident: $key_type:ty,)+ }
            columns { $($(#[$doc:meta])* $column:ident: $type:ty,)+ }
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[$key_doc])* pub $key: $key_type,)+
            $($(#[$doc])* pub $column: $type,)+
        }

        #[diagnostic::do_not_recommend]
        impl Entity for $name {
            type Fields = ();

            fn fields() -> Self::Fields {}

            fn table() -> &'static Table {
                static TABLE: LazyLock<Table> = LazyLock::new(|| {
                    Table::builder($table)
                        $(.key::<$key_type>(stringify!($key)))+
                        $(.column::<$type>(stringify!($column)))+
                        .build()
                });
                &TABLE
            }

            fn read_row<R: RowSource + ?Sized>(
                row: &mut RowCursor<'_, R>,
            ) -> Result<Self, MappingError> {
                Ok(Self {
                    $($key: row.next()?,)+
                    $($column: row.next()?,)+
                })
            }

            fn to_row(&self) -> Result<Vec<Value>, MappingError> {
                let error = |column: &str, reason: ColumnError| MappingError {
                    table: $table.to_owned(),
                    column: column.to_owned(),
                    reason,
                };
                Ok(vec![
                    $(self.$key.to_value().map_err(|cause| error(stringify!($key), cause))?,)+
                    $(self.$column.to_value().map_err(|cause| error(stringify!($column), cause))?,)+
                ])
            }
        }

        #[diagnostic::do_not_recommend]
        impl ReadModel for $name {
            type Key = ($($key_type,)+);

            fn key(&self) -> Self::Key {
                ($(self.$key.clone(),)+)
            }
        }
    };
}

row! {
    /// An instance of a process, as it is stored. For authors of stores.
    ProcessRow in "cqrs_process" {
        keys {
            /// The name of the manager.
            process: String,
            /// The tenant; empty where there is none.
            scope: String,
            /// Its id within the tenant.
            instance: String,
        }
        columns {
            /// Its id over all managers and tenants.
            instance_id: Uuid,
            /// What the manager remembers.
            state: AsJson<Json>,
            /// The deadlines that hold.
            deadlines: AsJson<BTreeMap<String, SetDeadline>>,
            /// How many tasks there were.
            tasks: i64,
            /// When it started.
            started_at: DateTime<Utc>,
            /// When it ended.
            completed_at: Option<DateTime<Utc>>,
        }
    }
}

row! {
    /// Something that is to be done for an instance of a process. For authors of stores.
    ProcessTask in "cqrs_process_task" {
        keys {
            /// For which instance.
            instance_id: Uuid,
            /// Its number there, in the order in which tasks were made.
            number: i64,
        }
        columns {
            /// The name of the manager.
            process: String,
            /// The tenant of the instance; empty where there is none.
            scope: String,
            /// The id of the instance within the tenant.
            instance: String,
            /// The name of the deadline that passes; `None` where a command is executed.
            deadline: Option<String>,
            /// The command.
            command: Option<AsJson<Json>>,
            /// When it is to be done, at the earliest.
            due_at: DateTime<Utc>,
            /// How often it has failed.
            attempts: i32,
            /// Why, the last time.
            error: Option<String>,
            /// Since when it is parked.
            parked_at: Option<DateTime<Utc>>,
            /// The correlation id of the event that it follows from.
            correlation_id: Uuid,
            /// The id of that event.
            causation_id: Uuid,
            /// Its trace.
            trace: Option<AsJson<TraceContext>>,
        }
    }
}

/// A deadline that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDeadline {
    /// The number of its task.
    pub number: i64,
    /// When it passes.
    pub at: DateTime<Utc>,
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// It will be done.
    Waiting,
    /// It has failed too often, and waits for somebody to retry or discard it.
    Parked,
}

impl ProcessTask {
    /// Where it is.
    #[must_use]
    pub fn state(&self) -> TaskState {
        match self.parked_at {
            None => TaskState::Waiting,
            Some(_) => TaskState::Parked,
        }
    }

    /// What it is after it has failed once more.
    #[must_use]
    pub fn failed(&self, failure: TaskFailure) -> Self {
        let is_parked = failure.again_at.is_none();
        Self {
            attempts: self.attempts.saturating_add(1),
            error: Some(failure.error),
            due_at: failure.again_at.unwrap_or(self.due_at),
            parked_at: is_parked.then_some(failure.at),
            ..self.clone()
        }
    }

    /// The context in which it is done: the tenant of the instance, and what it follows from. The
    /// manager is the actor.
    pub(super) fn context(&self) -> Result<RequestContext> {
        let scope = match self.scope.as_str() {
            "" => TenantScope::System,
            tenant => TenantScope::Tenant(TenantId::new(tenant)?),
        };
        let context = RequestContext::new(scope)
            .with_actor(&self.process)
            .with_correlation_id(self.correlation_id)
            .with_causation_id(self.causation_id);
        Ok(match &self.trace {
            Some(AsJson(trace)) => context.with_trace(trace.clone()),
            None => context,
        })
    }
}

/// An instance of a process, from [`Store::process`](crate::Store::process).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProcessInstance<S> {
    /// What the manager remembers.
    pub state: S,
    /// The deadlines that hold, and when they pass.
    pub deadlines: BTreeMap<String, DateTime<Utc>>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub completed_at: Option<DateTime<Utc>>,
}

impl<S: DeserializeOwned> ProcessInstance<S> {
    pub(crate) fn of(row: ProcessRow) -> Result<Self> {
        let deadlines = row.deadlines.0.into_iter();
        Ok(Self {
            state: read_state(&row.process, &row.instance, row.state.0)?,
            deadlines: deadlines.map(|(name, set)| (name, set.at)).collect(),
            started_at: row.started_at,
            completed_at: row.completed_at,
        })
    }
}

/// The state of an instance.
pub(super) fn read_state<S: DeserializeOwned>(
    process: &str,
    instance: &str,
    state: Json,
) -> Result<S> {
    serde_json::from_value(state).map_err(|cause| {
        let what = format!("the state of {process} {instance} cannot be read: {cause}");
        Error::other(what)
    })
}

/// Anything of a process manager as JSON.
pub(super) fn to_json<T: Serialize>(process: &str, value: &T) -> Result<Json> {
    serde_json::to_value(value)
        .map_err(|cause| Error::other(format!("{process} cannot be written as JSON: {cause}")))
}

/// The text for a tenant in the columns `scope`.
pub(crate) fn scope_text(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(String::new, |tenant| tenant.as_str().to_owned())
}
