//! Process managers: what follows from events, one after the other, and by when.

mod handler;
mod manager;
mod rows;
mod simulation;
mod subscription;
mod tasks;

pub use self::manager::{Instance, Next, ProcessManager};
pub use self::rows::{ProcessInstance, ProcessRow, ProcessTask, SetDeadline, TaskState};
pub use self::subscription::ProcessSubscription;
pub use self::tasks::{
    DEADLINE_PASSED, ProcessStore, TaskFailure, Tried, record_failure, try_task,
};

pub(crate) use self::handler::Handling;
pub(crate) use self::rows::scope_text;
pub(crate) use self::simulation::Instances;
