//! Schemas of events: how they are derived, compared, recorded and named.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod compared;
mod derived;
mod named;
mod recorded;
mod releases;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cqrs_core::DomainEvent;
use cqrs_core::schema::{EventSchema, EventSchemas};
use schemars::JsonSchema;

pub(crate) fn schemas<E: DomainEvent + JsonSchema>() -> EventSchemas {
    EventSchemas::new().with::<E>().unwrap()
}

pub(crate) fn only<E: DomainEvent + JsonSchema>() -> EventSchema {
    schemas::<E>().iter().next().unwrap().clone()
}

/// What a failing check says.
pub(crate) fn complaint(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("it fails");
    *panic.downcast::<String>().unwrap()
}
