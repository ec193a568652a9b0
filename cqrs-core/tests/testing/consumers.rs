//! Consumers of the log, given events: process managers and projections.

use chrono::TimeDelta;
use cqrs_core::conformance::fixtures::{
    AccountEvent, BankEvent, BookCents, Bookkeeping, Dunning, LedgerEvent, Statement, Statements,
};
use cqrs_core::testing::{ProjectionScenario, process, projection};
use cqrs_core::{
    Envelope, Error, Id, Owned, Projection, ProjectionTransaction, ReadModel, Result, RowAddress,
    RowProjection, TenantId,
};
use uuid::Uuid;

use super::{complaint, owner};

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

#[test]
fn tenants_are_not_mixed_unasked() {
    let north = TenantId::new("north").unwrap();
    let _ = projection(Journal)
        .of_tenant(north)
        .when("A1", AccountEvent::Opened { owner: owner() })
        .then_error_if(|error| {
            assert!(error.is_of_page());
            assert!(error.to_string().contains("shared"), "{error}");
        })
        .then_rows([]);
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

/// What fails changes nothing, neither what is remembered nor what is waited for.
#[test]
fn a_manager_may_be_expected_to_fail() {
    let opened = || AccountEvent::Opened { owner: owner() };
    let unlucky = || AccountEvent::Moved {
        cents: Dunning::UNLUCKY,
    };
    process(Dunning)
        .given("A1", [opened()])
        .when_time_passes(TimeDelta::seconds(30))
        .then_nothing()
        .when("A1", unlucky())
        .then_error_if(|error| assert_eq!(error.to_string(), "unlucky"))
        .then_nothing()
        .then_state("A1", |state| assert_eq!(state.moves, 0))
        .when_time_passes(TimeDelta::seconds(30))
        .then([book(Dunning::FEE)])
        .when("A1", AccountEvent::Moved { cents: 2 })
        .then_commands(|commands| assert_eq!(commands[0].cents, 2));
    let failed = || {
        process(Dunning)
            .given("A1", [opened()])
            .when("A1", unlucky())
    };
    for text in [
        complaint(|| drop(failed().then([]))),
        complaint(|| drop(failed().then_commands(|_| {}))),
        complaint(|| drop(failed().then_state("A1", |_| {}))),
        complaint(|| drop(failed().then_complete("A1"))),
        complaint(|| drop(failed().when("A1", AccountEvent::Closed))),
        complaint(|| drop(failed().given("A1", [AccountEvent::Closed]))),
        complaint(|| drop(failed().when_time_passes(TimeDelta::days(1)))),
        complaint(|| drop(process(Dunning).given("A1", [opened(), unlucky()]))),
    ] {
        assert_eq!(text, "the manager failed: unlucky");
    }
    let text = complaint(|| {
        let moved = AccountEvent::Moved { cents: 2 };
        let _ = process(Dunning)
            .given("A1", [opened()])
            .when("A1", moved)
            .then_error_if(|_| {});
    });
    assert!(text.contains("it issued [\n    Book"), "{text}");
}

#[test]
fn a_manager_of_several_aggregates_is_given_events_of_each() {
    let opened = AccountEvent::Opened { owner: owner() };
    process(Bookkeeping)
        .given("A1", [opened, AccountEvent::Moved { cents: 3 }])
        .when("A1", AccountEvent::Closed)
        .then_nothing()
        .when("of A1", LedgerEvent::Moved { cents: 3 })
        .then([book(0)])
        .then_complete("A1")
        .when("of A1", LedgerEvent::Closed)
        .then_nothing();
}

#[test]
fn a_projection_may_be_expected_to_fail() {
    let opened = || AccountEvent::Opened { owner: owner() };
    let north = || TenantId::new("north").unwrap();
    let accounts = || ProjectionScenario::new(Accounts).of_tenant(north());
    accounts()
        .given("A1", [opened()])
        .when("A1", AccountEvent::Closed)
        .then_error_if(|error| assert_eq!(error.to_string(), "nothing has moved"))
        .then_row_of::<OpenAccount>("A1".to_owned(), |row| assert_eq!(row.moves, 0))
        .then_rows_of::<ClosedAccount>([])
        .when("A1", AccountEvent::Moved { cents: 3 })
        .then_row_of::<OpenAccount>("A1".to_owned(), |row| assert_eq!(row.moves, 1));
    let failed = || {
        accounts()
            .given("A1", [opened()])
            .when("A1", AccountEvent::Closed)
    };
    for text in [
        complaint(|| drop(failed().then_rows_of::<ClosedAccount>([]))),
        complaint(|| drop(failed().then_no_row_of::<ClosedAccount>("A1".to_owned()))),
        complaint(|| drop(failed().when("A1", opened()))),
        complaint(|| drop(failed().given("A1", [opened()]))),
    ] {
        assert_eq!(text, "the projection failed: nothing has moved");
    }
    let text = complaint(|| drop(accounts().when("A1", opened()).then_error_if(|_| {})));
    assert!(text.contains("but it did not"), "{text}");
}

#[test]
fn a_projection_of_several_aggregates_is_given_events_of_each() {
    let moved = |cents| AccountEvent::Moved { cents };
    projection(Statements)
        .of_tenant(TenantId::new("north").unwrap())
        .given("A1", [moved(3)])
        .given("of A1", [LedgerEvent::Moved { cents: 2 }])
        .when("A1", moved(4))
        .then_rows([Statement {
            account: "A1".to_owned(),
            trail: "a1 l1 a2 ".to_owned(),
            moved: 7,
            booked: 2,
        }]);
}

/// An id needs not be made text before.
#[test]
fn aggregates_are_named_by_their_ids() {
    let id = Id::<BankEvent>::new();
    projection(Statements)
        .of_tenant(TenantId::new("north").unwrap())
        .given(id, [AccountEvent::Closed])
        .then_row(id.to_string(), |row| assert_eq!(row.trail, "a1 "));
}
