//! What applications test with.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

mod consumers;
mod unasked;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use chrono::DateTime;
use cqrs_core::conformance::fixtures::{
    Account, AccountEvent, AccountForm, Ledger, LedgerEvent, LetterEvent,
};
use cqrs_core::testing::{Golden, given, given_stored};
use cqrs_core::{AuditStamps, Decide, Result, Sourced, TenantId};

fn owner() -> String {
    "ann".to_owned()
}

fn opened() -> LedgerEvent {
    LedgerEvent::Opened { owner: owner() }
}

fn withdraw(ledger: &mut Ledger, cents: i64) -> Result<i64, &'static str> {
    if cents > ledger.cents {
        return Err("overdrawn");
    }
    ledger.raise(LedgerEvent::Moved { cents: -cents });
    Ok(ledger.cents)
}

/// What a failing expectation says.
fn complaint(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("it fails");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn a_command_leads_to_events() {
    let ledger = || given::<Ledger>("L1".to_owned(), [opened(), LedgerEvent::Moved { cents: 5 }]);
    ledger()
        .when(|ledger| withdraw(ledger, 3))
        .then([LedgerEvent::Moved { cents: -3 }])
        .then_state(|ledger| {
            assert_eq!(ledger.contents(), ("ann", 2, false));
            assert_eq!(ledger.root.version(), 2);
        });
    ledger()
        .when(|ledger| withdraw(ledger, 6))
        .then_error("overdrawn");
    ledger()
        .when(AccountForm::close)
        .then([LedgerEvent::Closed]);
    ledger().when(|_| ()).then_nothing();
    given::<Ledger>("L1".to_owned(), [])
        .when(|ledger| ledger.open("ann"))
        .then([opened()]);
}

/// Events may have parts that a test does not know before.
#[test]
fn events_may_be_looked_at() {
    let ledger = || given::<Ledger>("L1".to_owned(), [opened()]);
    ledger()
        .when(|ledger| ledger.transfer(3))
        .then_events(|events| {
            assert!(matches!(events, [LedgerEvent::Moved { cents }] if *cents > 0));
        })
        .then_state(|ledger| assert_eq!(ledger.cents, 3));
    ledger()
        .when(|_| ())
        .then_events(|events| assert!(events.is_empty()));
    let text = complaint(|| {
        ledger()
            .when(|ledger| withdraw(ledger, 9))
            .then_events(|_| {});
    });
    assert!(text.contains("refused: \"overdrawn\""), "{text}");
    let text = complaint(|| {
        let outcome = ledger().when(|ledger| {
            ledger.transfer(3);
            ledger.closed = true;
        });
        outcome.then_events(|events| assert_eq!(events.len(), 1));
    });
    assert!(text.contains("otherwise than by `apply`"), "{text}");
}

struct Close;

impl Decide<Close> for TestLedger {
    type Error = String;

    fn decide(&self, _: Close) -> Result<Vec<TestEvent>, String> {
        match self.closed {
            true => Err("closed already".to_owned()),
            false => Ok(vec![TestEvent::Closed]),
        }
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, cqrs_core::DomainEvent)]
#[event(aggregate = "test_ledger")]
enum TestEvent {
    Closed,
}

#[derive(Debug, Clone, cqrs_core::Aggregate)]
#[aggregate(sourced, event = TestEvent)]
struct TestLedger {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: cqrs_core::Root<TestEvent>,
    closed: bool,
}

impl Sourced for TestLedger {
    fn apply(&mut self, event: &TestEvent) {
        match event {
            TestEvent::Closed => self.closed = true,
        }
    }
}

#[test]
fn a_decision_leads_to_events() {
    given::<TestLedger>(1, [])
        .when_decides(Close)
        .then([TestEvent::Closed]);
    given::<TestLedger>(1, [TestEvent::Closed])
        .when_decides(Close)
        .then_error("closed already");
}

#[test]
fn an_aggregate_with_a_row_is_tested_alike() {
    let mut account = Account::unopened("A1");
    account.open("ann");
    given_stored(account)
        .when(|account| account.transfer(7))
        .then([AccountEvent::Moved { cents: 7 }])
        .then_state(|account| assert_eq!(account.root.version(), 1));
}

/// What depends on time, actor and tenant is tested with fixed ones, in either form.
#[test]
fn who_and_when_can_be_given() {
    let at = DateTime::UNIX_EPOCH;
    let check = |root: &AuditStamps, tenant: Option<&TenantId>| {
        assert_eq!((root.created_at, root.updated_at), (Some(at), Some(at)));
        assert_eq!(root.created_by.as_deref(), Some("ann"));
        assert_eq!(root.updated_by.as_deref(), Some("ann"));
        assert_eq!(tenant.map(TenantId::as_str), Some("north"));
    };
    let north = || TenantId::new("north").unwrap();
    let ledger = given::<Ledger>("L1".to_owned(), [opened()]);
    let ledger = ledger.at(at).by("ann").of_tenant(north());
    ledger
        .when(|ledger| check(ledger.root.stamps(), ledger.root.tenant()))
        .then_nothing();
    let mut account = Account::unopened("A1");
    account.open("ann");
    let account = given_stored(account).at(at).by("ann").of_tenant(north());
    account
        .when(|account| check(account.root.stamps(), account.root.tenant()))
        .then_nothing();
}

/// What only the method changes is lost when the aggregate is loaded.
#[test]
fn a_state_that_no_event_makes_is_shown() {
    let ledger = || given::<Ledger>("L1".to_owned(), [opened()]);
    let text = complaint(|| {
        let outcome = ledger().when(|ledger| {
            ledger.transfer(3);
            ledger.owner = "ben".to_owned();
        });
        outcome.then([LedgerEvent::Moved { cents: 3 }]);
    });
    assert!(text.contains("otherwise than by `apply`"), "{text}");
    assert!(
        text.contains("-     owner: \"ann\",\n+     owner: \"ben\","),
        "{text}"
    );
    let text = complaint(|| {
        let outcome = ledger().when(|ledger| {
            ledger.closed = true;
            Err::<(), _>("no")
        });
        outcome.then_error("no");
    });
    assert!(text.contains("+     closed: true,"), "{text}");
}

#[test]
fn what_is_not_met_is_readable() {
    let ledger = || given::<Ledger>("L1".to_owned(), [opened(), LedgerEvent::Moved { cents: 5 }]);
    let text = complaint(|| {
        let outcome = ledger().when(|ledger| withdraw(ledger, 3));
        outcome.then([LedgerEvent::Moved { cents: -4 }, LedgerEvent::Closed]);
    });
    assert_eq!(
        text,
        "the events differ (- expected, + raised):\n  Moved {\n-     cents: -4,\n+     cents: -3,\n  }\n- Closed\n"
    );
    let text = complaint(|| {
        ledger().when(|ledger| withdraw(ledger, 9)).then_nothing();
    });
    assert!(text.contains("refused: \"overdrawn\""), "{text}");
    let text = complaint(|| {
        ledger()
            .when(|ledger| withdraw(ledger, 1))
            .then_error("overdrawn");
    });
    assert!(
        text.contains("expected that the command is refused"),
        "{text}"
    );
    let text = complaint(|| {
        ledger()
            .when(|ledger| withdraw(ledger, 9))
            .then_error("late");
    });
    assert!(text.contains("it is \"overdrawn\""), "{text}");
    let text = complaint(|| {
        let refused = |ledger: &mut Ledger| {
            ledger.close();
            Err::<(), _>("late")
        };
        ledger().when(refused).then_error("late");
    });
    assert!(text.contains("and yet it raised"), "{text}");
}

fn samples() -> [LetterEvent; 3] {
    let (to, currency) = ("ann".to_owned(), "CHF".to_owned());
    [
        LetterEvent::Written { to },
        LetterEvent::Franked {
            cents: 70,
            currency,
        },
        LetterEvent::Posted,
    ]
}

#[test]
fn payloads_of_every_release_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/letter");
    let read = Golden::<LetterEvent>::new(folder).check(&samples());
    let franked = |cents, currency: &str| {
        let currency = currency.to_owned();
        LetterEvent::Franked { cents, currency }
    };
    let named = |name: &str, event: LetterEvent| (name.to_owned(), event);
    let [written, of_now, posted] = samples();
    assert_eq!(
        read,
        [
            named("letter.franked.v3.json", of_now),
            named("letter.posted.v1.json", posted.clone()),
            named("letter.sent.v1.json", posted),
            named("letter.stamped.v1.json", franked(200, "EUR")),
            named("letter.stamped.v2.json", franked(150, "EUR")),
            named("letter.written.v1.json", written),
        ]
    );
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn payloads_are_recorded_and_then_held_to() {
    let folder = Folder::new("golden_recorded");
    let golden = || Golden::<LetterEvent>::new(&folder.0);
    let text = complaint(|| {
        golden().check(&samples());
    });
    assert!(text.contains("letter.franked.v3.json"), "{text}");
    assert!(text.contains("GOLDEN=record"), "{text}");
    let text = complaint(|| {
        golden().recording().check(&samples());
    });
    for expected in [
        "there is no file of the former name letter.stamped: run the test of the release",
        "there is no file of the former name letter.sent",
        "letter.franked.v1.json: there is no such file",
        "letter.franked.v2.json: there is no such file",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
    let old = |name: &str, text: &str| fs::write(folder.0.join(name), text).unwrap();
    old("letter.stamped.v1.json", "{\"euros\":1}\n");
    old("letter.stamped.v2.json", "{\"cents\":5}\n");
    old("letter.sent.v1.json", "{}\n");
    assert_eq!(golden().check(&samples()).len(), 6);

    let file = folder.0.join("letter.franked.v3.json");
    fs::write(&file, "{\"cents\":70}\n").unwrap();
    fs::write(folder.0.join("letter.lost.v1.json"), "{}").unwrap();
    fs::write(folder.0.join("letter.json"), "{}").unwrap();
    let text = complaint(|| {
        golden().recording().check(&samples()[..2]);
    });
    for expected in [
        "there is no sample of letter.posted",
        "another payload under the same schema version:\n- {\"cents\":70}\n+ {\"cents\":70,",
        "letter.franked.v3.json: payload of event type \"letter.franked\": missing field",
        "letter.lost.v1.json: unknown event type \"letter.lost\"",
        "letter.json: a file of a payload is named",
    ] {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[test]
fn an_event_type_may_have_several_samples() {
    let sample = |to: &str| LetterEvent::Written { to: to.to_owned() };
    let folder = Folder::new("golden_several");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/letter");
    fs::create_dir_all(&folder.0).unwrap();
    for file in fs::read_dir(source).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.0.join(file.file_name())).unwrap();
    }
    let golden = || Golden::<LetterEvent>::new(&folder.0);
    let all = |second: &str| [samples().as_slice(), &[sample(second)]].concat();
    let read = golden().recording().check(&all("ben"));
    let second = ("letter.written.v1.2.json".to_owned(), sample("ben"));
    assert!(read.contains(&second), "{read:?}");
    let text = complaint(|| {
        golden().check(&all("cleo"));
    });
    assert!(
        text.starts_with("letter.written.v1.2.json: the code writes another payload"),
        "{text}"
    );
}
