//! What applications test with.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta};
use cqrs_core::conformance::fixtures::{
    Account, AccountEvent, AccountForm, BookCents, Dunning, Ledger, LedgerEvent, LetterEvent,
};
use cqrs_core::testing::{Golden, ProjectionScenario, given, given_stored, process, projection};
use cqrs_core::{
    AuditStamps, Decide, Envelope, Error, Owned, Projection, ProjectionTransaction, ReadModel,
    Result, RowAddress, RowProjection, Sourced, TenantId,
};
use uuid::Uuid;

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

fn book(cents: i64) -> BookCents {
    let account = "A1".to_owned();
    BookCents { account, cents }
}

#[test]
fn events_and_time_lead_to_commands() {
    let opened = || AccountEvent::Opened { owner: owner() };
    let tenant = |name| TenantId::new(name).unwrap();
    process(Dunning)
        .of_tenant(tenant("north"))
        .given("A1", [opened()])
        .of_tenant(tenant("south"))
        .given("A2", [opened()])
        .of_tenant(tenant("north"))
        .when("A1", AccountEvent::Moved { cents: 3 })
        .then([book(3)])
        .then_state("A1", |state| assert_eq!(state.moves, 1))
        .when_time_passes(TimeDelta::seconds(59))
        .then_nothing()
        .when_time_passes(TimeDelta::seconds(1))
        .then_state("A1", |state| assert_eq!(state.moves, 1))
        .when("A1", AccountEvent::Closed)
        .then_nothing()
        .then_complete("A1")
        .when_time_passes(TimeDelta::days(1))
        .then_nothing();
    let message = complaint(|| {
        let _ = process(Dunning)
            .given("A1", [opened()])
            .when_time_passes(TimeDelta::seconds(60))
            .then([book(0)]);
    });
    assert!(message.starts_with("the commands differ"), "{message}");
}

/// A row for each event, with what the envelope says of it.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "entry")]
struct Entry {
    #[read_model(key)]
    event: Uuid,
    request: Uuid,
    actor: Option<String>,
}

struct Journal;

impl RowProjection for Journal {
    type Event = AccountEvent;
    type Row = Entry;
    const NAME: &'static str = "journal";

    fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<Uuid>> {
        Ok(Some(event.event_id()))
    }

    fn apply(&self, row: &mut Option<Entry>, event: &Envelope<AccountEvent>) -> Result<()> {
        *row = Some(Entry {
            event: event.event_id(),
            request: event.metadata().correlation_id,
            actor: event.metadata().actor.clone(),
        });
        Ok(())
    }
}

#[test]
fn rows_are_compared_with_fixed_ids() {
    let entry = |event: u128, actor: Option<&str>| Entry {
        event: Uuid::from_u128(event),
        request: Uuid::nil(),
        actor: actor.map(str::to_owned),
    };
    let journal = || {
        projection(Journal)
            .given("A1", [AccountEvent::Opened { owner: owner() }])
            .by("ann")
            .given("A2", [AccountEvent::Moved { cents: 3 }])
    };
    journal()
        .then_rows([entry(2, Some("ann")), entry(1, None)])
        .then_no_row(Uuid::from_u128(3));
    let text = complaint(|| {
        let _ = journal().then_rows([entry(1, None)]);
    });
    assert!(text.contains("+         \"ann\",\n"), "{text}");
    let text = complaint(|| {
        let _ = journal().then_row(Uuid::from_u128(3), |_| {});
    });
    assert!(text.contains("00000003"), "{text}");
}

/// A row for each account, in one table or the other.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "open_account", tenant)]
struct OpenAccount {
    #[read_model(key)]
    number: String,
    moves: i64,
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "closed_account", tenant)]
struct ClosedAccount {
    #[read_model(key)]
    number: String,
}

struct Accounts;

impl<T: ProjectionTransaction> Projection<T> for Accounts {
    type Event = AccountEvent;

    fn name(&self) -> &str {
        "accounts"
    }

    async fn apply(&self, page: &[Envelope<AccountEvent>], transaction: &mut T) -> Result<()> {
        for event in page {
            let tenant = event.tenant().cloned();
            let number = event.aggregate_id_str().to_owned();
            let address = RowAddress::of::<OpenAccount>(tenant.as_ref(), &number)?;
            let addresses = std::slice::from_ref(&address);
            let found = transaction.load::<OpenAccount>(addresses).await?.pop();
            let moves = found.map_or(0, |found| found.row.moves);
            if let AccountEvent::Closed = event.payload() {
                if moves == 0 {
                    return Err(Error::other("nothing has moved"));
                }
                transaction.delete::<OpenAccount>(addresses).await?;
                let row = ClosedAccount { number };
                transaction.upsert(&[Owned { tenant, row }]).await?;
            } else {
                let moves =
                    moves + i64::from(matches!(event.payload(), AccountEvent::Moved { .. }));
                let row = OpenAccount { number, moves };
                transaction.upsert(&[Owned { tenant, row }]).await?;
            }
        }
        Ok(())
    }
}

#[test]
fn rows_of_several_read_models_are_compared() {
    let opened = || AccountEvent::Opened { owner: owner() };
    let moved = || AccountEvent::Moved { cents: 3 };
    let open = |number: &str, moves| OpenAccount {
        number: number.to_owned(),
        moves,
    };
    let tenant = |name| TenantId::new(name).unwrap();
    let accounts = || {
        ProjectionScenario::new(Accounts)
            .of_tenant(tenant("south"))
            .given("A1", [opened(), moved(), moved()])
            .of_tenant(tenant("north"))
            .given("A1", [opened()])
            .given("A2", [opened(), moved(), AccountEvent::Closed])
    };
    accounts()
        .then_rows_of([open("A1", 2), open("A1", 0)])
        .then_row_of::<ClosedAccount>("A2".to_owned(), |row| assert_eq!(row.number, "A2"))
        .then_no_row_of::<OpenAccount>("A2".to_owned())
        .of_tenant(tenant("south"))
        .then_row_of::<OpenAccount>("A1".to_owned(), |row| assert_eq!(row.moves, 2))
        .then_no_row_of::<ClosedAccount>("A2".to_owned());
    for (wrong, expected) in [
        (
            complaint(|| {
                let _ = accounts().then_rows_of::<ClosedAccount>([]);
            }),
            "the rows differ (- expected, + there):\n",
        ),
        (
            complaint(|| {
                let _ = accounts().given("A3", [opened(), AccountEvent::Closed]);
            }),
            "the projection failed: nothing has moved",
        ),
    ] {
        assert!(wrong.starts_with(expected), "{wrong}");
    }
}

/// It makes rows with another key than it says.
struct Misplaced;

impl RowProjection for Misplaced {
    type Event = AccountEvent;
    type Row = Entry;
    const NAME: &'static str = "misplaced";

    fn key(&self, _: &Envelope<AccountEvent>) -> Result<Option<Uuid>> {
        Ok(Some(Uuid::nil()))
    }

    fn apply(&self, row: &mut Option<Entry>, event: &Envelope<AccountEvent>) -> Result<()> {
        *row = Some(Entry {
            event: event.event_id(),
            request: Uuid::nil(),
            actor: None,
        });
        Ok(())
    }
}

/// What a store refuses, so that a test does not pass that no store would.
#[test]
fn a_row_under_another_key_is_refused() {
    let text = complaint(|| {
        let _ = projection(Misplaced).given("A1", [AccountEvent::Closed]);
    });
    assert!(text.contains("made one with another key"), "{text}");
}
