//! A scenario that ends before anything is expected of its last step.

use chrono::TimeDelta;
use cqrs_core::TenantId;
use cqrs_core::conformance::fixtures::{AccountEvent, AccountForm, Dunning, Ledger, Statements};
use cqrs_core::testing::{given, process, projection};

use super::{complaint, opened, owner, withdraw};

fn moved(cents: i64) -> AccountEvent {
    AccountEvent::Moved { cents }
}

fn assert_unasked(test: impl FnOnce()) {
    let text = complaint(test);
    assert!(
        text.starts_with("nothing is expected of the step at ") && text.contains("unasked.rs:"),
        "{text}"
    );
}

#[test]
fn a_command_of_which_nothing_is_expected_fails() {
    let ledger = || given::<Ledger>("L1".to_owned(), [opened()]);
    assert_unasked(|| drop(ledger().when(|ledger| ledger.transfer(3))));
    assert_unasked(|| drop(ledger().when(|ledger| withdraw(ledger, 3))));
    // That it was refused is not seen in its state.
    assert_unasked(|| {
        let refused = ledger().when(|ledger| withdraw(ledger, 3));
        let _ = refused.then_state(|ledger| assert_eq!(ledger.cents, 0));
    });
    ledger()
        .when(|ledger| ledger.transfer(3))
        .then_state(|ledger| assert_eq!(ledger.cents, 3));
    ledger()
        .when(|ledger| withdraw(ledger, 3))
        .then_state(|ledger| assert_eq!(ledger.cents, 0))
        .then_error("overdrawn");
}

#[test]
fn a_step_of_a_process_of_which_nothing_is_expected_fails() {
    let opened = AccountEvent::Opened { owner: owner() };
    let dunning = || process(Dunning).given("A1", [opened.clone()]);
    assert_unasked(|| drop(dunning().when("A1", moved(3))));
    assert_unasked(|| drop(dunning().when("A1", moved(Dunning::UNLUCKY))));
    assert_unasked(|| drop(dunning().when_time_passes(TimeDelta::days(1))));
    assert_unasked(|| drop(dunning().when("A1", moved(3)).by("ann")));
    assert_unasked(|| {
        drop(
            dunning()
                .when("A1", moved(3))
                .then_commands(|_| {})
                .when("A1", moved(3)),
        );
    });
    let expected = || dunning().when("A1", moved(3));
    drop(expected().then_commands(|_| {}));
    drop(expected().then_state("A1", |state| assert_eq!(state.moves, 1)));
    drop(
        dunning()
            .when("A1", AccountEvent::Closed)
            .then_complete("A1"),
    );
    drop(
        dunning()
            .when("A1", moved(Dunning::UNLUCKY))
            .then_error_if(|_| {}),
    );
    // One that only leads to the next.
    drop(expected().when("A1", AccountEvent::Closed).then_nothing());
    drop(dunning());
}

#[test]
fn an_event_of_a_projection_of_which_nothing_is_expected_fails() {
    let north = TenantId::new("north").unwrap();
    let statements = || projection(Statements).of_tenant(north.clone());
    let moved = || statements().when("A1", moved(3));
    assert_unasked(|| drop(moved()));
    assert_unasked(|| {
        drop(
            moved()
                .then_row("A1".to_owned(), |_| {})
                .when("A1", AccountEvent::Closed),
        );
    });
    drop(moved().then_row("A1".to_owned(), |row| assert_eq!(row.moved, 3)));
    drop(moved().then_no_row("A2".to_owned()));
    drop(statements().given("A1", [AccountEvent::Closed]));
}
