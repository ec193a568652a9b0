//! The projector: what it delivers, when, and what it does about failures.

mod failures;
mod horizon;
mod lifecycle;
mod pages;
mod support;
mod waiting;
