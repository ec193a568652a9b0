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
//! - [`unlocked`] has pages that are applied without a lock, with the page that is read ahead, and
//!   crashes of the server that take what was committed.
//! - [`split`] has several segments of such pages, while their number changes, and an event that fails.
//!
//! [`Design`] also names designs that are known to be wrong, and [`Unlocked`] and [`Split`] those
//! without a lock.
//! The checker has to refute each of them: a model in which they hold proves nothing.

mod log;
mod readers;
mod split;
mod system;
mod unlocked;

use std::collections::BTreeSet;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

use self::split::{Segments, Split};
use self::system::System;
use self::unlocked::{Unlocked, Workers};

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
fn check<M: Model + Debug + Send + Sync + 'static>(system: M) -> usize
where
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let checker = system.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    println!("{states} states");
    states
}

/// Finds a way in which a design breaks a property.
#[track_caller]
fn refute<M: Model + Debug + Send + Sync + 'static>(system: M, broken: &'static str)
where
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let design = format!("{system:?}");
    let checker = system
        .checker()
        .finish_when(HasDiscoveries::AllOf(BTreeSet::from([broken])))
        .threads(2)
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(broken)
        .unwrap_or_else(|| panic!("it was not refuted: {broken}, {design}"));
    println!("{design} breaks {broken:?}:\n{path}");
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

#[test]
fn versions_hold_for_pages_without_a_lock() {
    let states = check(Workers::new(Unlocked::Versions).resets(1).crashes(1));
    assert!(states > 1_000, "{states}");
}

#[test]
fn versions_hold_beside_a_worker_that_claims() {
    let states = check(Workers::new(Unlocked::Versions).one_claims().resets(1));
    assert!(states > 1_000, "{states}");
}

#[test]
fn versions_hold_where_a_crash_takes_pages() {
    let states = check(Workers::new(Unlocked::Versions).server_crashes(1));
    assert!(states > 1_000, "{states}");
}

#[test]
fn versions_hold_where_a_crash_takes_pages_and_a_reset_brings_them_back() {
    let system = Workers::new(Unlocked::Versions).quiet().resets(1);
    let states = check(system.server_crashes(2).one_claims());
    assert!(states > 1_000, "{states}");
}

#[test]
fn a_checkpoint_known_by_its_position_is_refuted() {
    refute(Workers::new(Unlocked::PositionAlone).resets(1), TWICE);
}

#[test]
fn a_checkpoint_known_by_its_transaction_is_refuted() {
    let system = Workers::new(Unlocked::NumberAlone);
    refute(system.server_crashes(1), SKIPPED);
}

#[test]
fn a_checkpoint_known_by_its_time_is_refuted() {
    refute(Workers::new(Unlocked::TimeAlone), TWICE);
}

#[test]
fn rows_and_checkpoint_in_two_transactions_are_refuted() {
    refute(Workers::new(Unlocked::TwoTransactions), TWICE);
}

#[test]
fn a_page_read_ahead_that_is_taken_whoever_committed_is_refuted() {
    refute(Workers::new(Unlocked::AheadWhoeverCommitted), TWICE);
}

#[test]
fn a_page_read_ahead_up_to_what_is_visible_is_refuted() {
    refute(Workers::new(Unlocked::AheadOfTheHorizon), SKIPPED);
}

#[test]
fn rows_loaded_without_a_look_at_the_checkpoint_are_refuted() {
    let system = Workers::new(Unlocked::LoadedUnseen).quiet();
    refute(system.server_crashes(1), TWICE);
}

/// How many steps the readers may need for the rest, once the writers have ended.
const STEPS_TO_SETTLE: usize = 64;

/// What comes of a state by the actions of readers alone, one after the other.
fn settled<M>(
    model: &M,
    state: &M::State,
    read_actions: impl Fn(&M::State, &mut Vec<M::Action>),
) -> M::State
where
    M: Model<State: Clone, Action: Clone>,
{
    let mut state = state.clone();
    let mut actions = Vec::new();
    for step in 0..STEPS_TO_SETTLE {
        actions.clear();
        read_actions(&state, &mut actions);
        if actions.is_empty() {
            break;
        }
        let action = actions[step % actions.len()].clone();
        if let Some(next) = model.next_state(&state, action) {
            state = next;
        }
    }
    state
}

fn segments(design: Split, begins_with: usize, changes: u8) -> Segments {
    Segments {
        design,
        begins_with,
        changes,
        crashes: 0,
        poison: None,
    }
}

/// The third event fails: the other segment may stand before it when the number changes.
fn poisoned(design: Split) -> Segments {
    Segments {
        poison: Some(3),
        ..segments(design, 2, 1)
    }
}

#[test]
fn versions_hold_while_the_number_of_segments_changes() {
    for begins_with in [1, 2] {
        let states = check(segments(Split::Versions, begins_with, 2));
        assert!(states > 1_000, "{states}");
    }
}

#[test]
fn versions_hold_for_segments_whose_workers_are_killed() {
    let system = Segments {
        crashes: 1,
        ..segments(Split::Versions, 2, 1)
    };
    let states = check(system);
    assert!(states > 1_000, "{states}");
}

#[test]
fn versions_hold_where_an_event_is_put_aside_while_the_number_changes() {
    let states = check(poisoned(Split::Versions));
    assert!(states > 1_000, "{states}");
    let system = Segments {
        crashes: 1,
        ..poisoned(Split::Versions)
    };
    check(system);
}

#[test]
fn segments_known_by_their_positions_are_refuted() {
    refute(segments(Split::PositionAlone, 1, 1), TWICE);
}

#[test]
fn a_barrier_that_leaves_the_version_is_refuted() {
    refute(segments(Split::BarrierApart, 2, 1), SETTLES);
}

#[test]
fn an_event_put_aside_behind_the_barrier_is_refuted() {
    refute(poisoned(Split::AsideBehindTheBarrier), SETTLES);
}
