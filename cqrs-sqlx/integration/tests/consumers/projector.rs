//! The projector: what it delivers, when, and what it does about failures.

#![allow(clippy::unwrap_used, reason = "also the helpers are tests")]

mod attempts;
mod bisecting;
mod cancelled;
mod durability;
mod exchanged;
mod failures;
mod gaps;
mod hangs;
mod health;
mod horizon;
mod lifecycle;
mod pages;
mod parking;
mod paused;
mod rebuild;
mod replaced;
mod replays;
mod segments;
mod snapshots;
pub(crate) mod support;
mod taken_over;
mod turns;
mod unlocked;
mod unsplittable;
mod views;
mod waiting;
mod wake_up;
