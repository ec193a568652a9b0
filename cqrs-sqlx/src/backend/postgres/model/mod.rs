//! A model of writers, horizon and readers, for a model checker.
//!
//! The checker takes every step of everyone in every order, crashes among them, and looks at each
//! state that can come of it. The horizon in the model is not a copy: it is
//! [`PgHorizon`](super::horizon::PgHorizon) itself, which is handed what the two steps of a look would
//! have found.
//!
//! - [`log`] has the writers: a transaction takes the lock on the log, draws a position, becomes
//!   visible, and then lets its locks go, each a step of its own.
//! - [`readers`] has processes, each with a horizon task and a worker of one subscription: look,
//!   claim, read, apply and advance; parking; a replay of what was parked.
//! - [`system`] puts them together, and says what must hold.
//!
//! [`Design`] also names designs that are known to be wrong. The checker has to refute each of
//! them: a model in which they hold proves nothing.

mod log;
mod readers;
mod system;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use self::system::System;

/// How readers find out what to read, and what they keep of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Design {
    /// What the crate does: one statement, on one snapshot, locks the checkpoint and reads the page
    /// after it, up to a horizon that was looked for before.
    Horizon,
    /// The same in two statements.
    TwoStatements,
    /// Reads everything after the checkpoint.
    NoHorizon,
    /// Looks for the holders first and for what is visible after.
    HoldersFirst,
    /// Takes the position that was drawn last for the last that is visible.
    LastDrawn,
    /// Looks for the horizon and reads the page in one statement, so on one snapshot.
    OneStatement,
    /// Orders by the id of the transaction, up to the oldest that is running.
    TransactionId,
    /// Marks each event when it is applied; workers skip what others have locked.
    StatusColumn,
    /// Moves the checkpoint in a transaction of its own, after that of the rows.
    CheckpointAfterwards,
    /// Moves the checkpoint in a transaction of its own, before that of the rows.
    CheckpointBefore,
}

const SKIPPED: &str = "no event is skipped";
const TWICE: &str = "no event is applied twice";
const ORDER: &str = "the events of each aggregate are applied in their order";
const SETTLES: &str = "when the writers have ended, everything is applied";

/// Checks every reachable state, and says how many there are.
fn check(system: System) -> usize {
    let checker = system.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{states} states");
    states
}

/// Finds a way in which a design breaks a property.
#[track_caller]
fn refute(system: System, broken: &'static str) {
    let design = system.design();
    let checker = system
        .checker()
        .finish_when(HasDiscoveries::AllOf(BTreeSet::from([broken])))
        .threads(2)
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(broken)
        .unwrap_or_else(|| panic!("{design:?} was not refuted: {broken}"));
    println!("{design:?} breaks {broken:?}:\n{path}");
}

#[test]
fn the_horizon_holds_for_three_writers() {
    let states = check(
        System::new(Design::Horizon)
            .writers(3)
            .replicas(1)
            .crashes(0),
    );
    assert!(states > 1_000, "{states}");
}

#[test]
fn the_horizon_holds_for_two_replicas_and_a_crash() {
    let states = check(
        System::new(Design::Horizon)
            .writers(2)
            .replicas(2)
            .crashes(1),
    );
    assert!(states > 1_000, "{states}");
}

#[test]
fn the_horizon_holds_where_the_claim_is_a_statement_of_its_own() {
    let system = System::new(Design::TwoStatements).writers(2);
    let states = check(system.without_aborts().crashes(0));
    assert!(states > 1_000, "{states}");
}

#[test]
fn the_horizon_holds_over_a_restart_with_a_prepared_transaction() {
    let states = check(
        System::new(Design::Horizon)
            .writers(2)
            .replicas(1)
            .crashes(0)
            .restarts(1),
    );
    assert!(states > 1_000, "{states}");
}

#[test]
fn parking_keeps_the_order_of_each_aggregate() {
    let system = System::new(Design::Horizon).writers(2).one_aggregate();
    let states = check(system.without_aborts().crashes(0).poisoned());
    assert!(states > 1_000, "{states}");
}

#[test]
fn reading_all_that_is_visible_is_refuted() {
    let system = System::new(Design::NoHorizon).writers(2).replicas(1);
    refute(system, SKIPPED);
}

#[test]
fn looking_for_the_holders_first_is_refuted() {
    let system = System::new(Design::HoldersFirst).writers(2).replicas(1);
    refute(system, SKIPPED);
}

#[test]
fn the_last_position_drawn_is_refuted() {
    let system = System::new(Design::LastDrawn).writers(2).replicas(1);
    refute(system.crashes(0).restarts(1), SKIPPED);
}

#[test]
fn a_horizon_in_the_statement_that_reads_is_refuted() {
    let system = System::new(Design::OneStatement).writers(2).replicas(1);
    refute(system, SKIPPED);
}

#[test]
fn the_order_of_transaction_ids_is_refuted() {
    let system = System::new(Design::TransactionId)
        .writers(2)
        .replicas(1)
        .one_aggregate();
    refute(system, ORDER);
}

#[test]
fn a_status_column_with_two_workers_is_refuted() {
    let system = System::new(Design::StatusColumn).writers(2).one_aggregate();
    refute(system, ORDER);
}

#[test]
fn a_checkpoint_moved_afterwards_is_refuted() {
    let system = System::new(Design::CheckpointAfterwards)
        .writers(1)
        .replicas(1);
    refute(system, TWICE);
}

#[test]
fn a_checkpoint_moved_before_is_refuted() {
    let system = System::new(Design::CheckpointBefore).writers(1).replicas(1);
    refute(system, SKIPPED);
}
