//! Consumers of several aggregates: one row, one process and one page of the events of all.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::Harness;
use super::fixtures::{
    Account, AccountEvent, AccountForm, BankEvent, Bookkeeping, Dunning, Ledger, LedgerEvent,
    LetterEvent, Member, MemberEvent, OldLetter, OldLetterEvent, Statement, Statements,
};
use super::projections::{all, fold, sorted};
use super::support::{Bench, assert_usage, begin, err, north, ok, south, system};
use crate::EventSet;
use crate::consistency::ConsistencyCheck;
use crate::context::RequestContext;
use crate::envelope::{Envelope, Position};
use crate::error::{Error, Result};
use crate::projection::{Projection, ProjectionTransaction, RowProjection, Rows};
use crate::read_model::ReadModels;
use crate::repository::EventHistory;
use crate::sealed::{Forgotten, Sealed, Sealing, Subject};
use crate::sourced::{Sourced, SourcedState};
use crate::store::Store;
use crate::subscription::{FailurePolicy, Parking, Subscription};
use crate::unit_of_work::UnitOfWork;

/// What a number of accounts and their ledgers went through, with others in between: in commits of one
/// and of both, in either order, with changes without an event.
async fn history<H: Harness>(bench: &Bench<'_, H>) {
    for round in 1..=4_i64 {
        let at = if round % 2 == 0 { south() } else { north() };
        let number = format!("A{round}");
        let mut account = Account::unopened(&number);
        account.open("ann");
        account.transfer(round);
        bench.save(&at, account).await;
        bench.counter(round).await;
        let mut ledger = Ledger::unopened(&Dunning::ledger(&number));
        ledger.open("ann");
        bench.save(&at, ledger).await;
        change(bench, &at, &number, |account, ledger| {
            account.transfer(10);
            ledger.transfer(20);
            ledger.transfer(21);
        })
        .await;
        bench.parcel(&at, "in between").await;
        let mut account: Account = bench.load(&at, number.clone()).await;
        account.owner = "without an event".to_owned();
        bench.save(&at, account).await;
        change(bench, &at, &number, |account, ledger| {
            ledger.close();
            account.close();
        })
        .await;
    }
}

/// Changes an account and its ledger in one commit.
async fn change<H: Harness>(
    bench: &Bench<'_, H>,
    at: &RequestContext,
    number: &str,
    change: impl FnOnce(&mut Account, &mut Ledger),
) {
    let mut uow = bench.unit_of_work(at);
    let mut account: Account = ok(uow.get(number.to_owned()).await);
    let mut ledger: Ledger = ok(uow.get(Dunning::ledger(number)).await);
    change(&mut account, &mut ledger);
    ok(uow.save(ledger));
    ok(uow.save(account));
    let _ = ok(uow.commit().await);
}

/// The trail of an account, as the log has it.
async fn trail_of<H: Harness>(bench: &Bench<'_, H>, number: &str) -> String {
    let ledger = Dunning::ledger(number);
    let log = bench.log().await;
    let steps = log.iter().filter(|event| !event.is_change_marker());
    let steps = steps.filter_map(|event| {
        let kind = match (event.aggregate_type(), event.aggregate_id_str()) {
            ("account", id) if id == number => 'a',
            ("ledger", id) if id == ledger => 'l',
            _ => return None,
        };
        Some(format!("{kind}{} ", event.aggregate_version()))
    });
    steps.collect()
}

async fn assert_folded<H: Harness>(bench: &Bench<'_, H>, accounts: usize) {
    let rows: Vec<Statement> = all(bench, &system()).await;
    assert_eq!(rows.len(), accounts);
    for row in &rows {
        assert_eq!(row.trail, trail_of(bench, &row.account).await);
    }
    assert_eq!(sorted(rows), sorted(fold(bench, Statements).await));
}

/// A row of several aggregates is what their events make of it, in the order of the log: kept by a
/// subscription, folded on read, and checked.
pub async fn a_row_of_several_aggregates_is_the_fold_of_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let make = || Subscription::new(Rows(Statements));
    for accounts in [4, 5] {
        if accounts == 4 {
            history(&bench).await;
        } else {
            let mut account = Account::unopened("A5");
            account.open("eve");
            bench.save(&north(), account).await;
        }
        h.run_subscription(&bench.store, &make).await;
        assert_folded(&bench, accounts).await;
    }
    for rows_at_once in [1, 1_000] {
        let rows = NonZeroUsize::new(rows_at_once).unwrap_or(NonZeroUsize::MIN);
        let check = ConsistencyCheck::of(&Statements).rows_at_once(rows);
        let report = ok(check.run(&bench.store, &system()).await);
        assert!(report.is_consistent(), "{report}");
        assert_eq!((report.rows, report.events), (5, 4 * 8 + 1));
    }
    let everyone = system();
    let live = bench.store.live(&everyone);
    let rows = ok(live.rows(&Statements).await);
    assert_eq!(sorted(rows), sorted(fold(&bench, Statements).await));
    let one = ok(live.find(&Statements, "A2".to_owned()).await);
    assert_eq!(one.map(|row| row.trail), Some(trail_of(&bench, "A2").await));
    // The events of one aggregate alone, of whichever type.
    let ledger = Dunning::ledger("A2");
    let part = ok(live.of_aggregate::<Ledger, _>(&Statements, &ledger).await);
    let part: Vec<_> = part.iter().map(|row| (row.moved, row.booked)).collect();
    assert_eq!(part, [(0, 41)]);
}

/// Inline it sees the events of a commit of several aggregates in the order of their positions.
pub async fn a_row_of_several_aggregates_is_kept_inline<H: Harness>(h: &H) {
    let bench = begin(h).await;
    ok(bench.store.inline_rows(Statements));
    history(&bench).await;
    assert_folded(&bench, 4).await;
    let events = ok(bench.store.rebuild_inline(Statements).await);
    // A change without an event is read too.
    assert_eq!(events, 4 * 9);
    assert_folded(&bench, 4).await;
}

/// Events of one aggregate that are parked hold up no other, also where both are of one row; they are
/// applied behind what has gone on.
pub async fn an_aggregate_of_several_is_parked_alone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let context = north();
    let picky = Picky::default();
    let make = || {
        let policy = FailurePolicy::Park(Parking::at_most(10));
        Subscription::new(picky.clone()).on_failure(policy)
    };
    let mut account = Account::unopened("A1");
    account.open("ann");
    bench.save(&north(), account).await;
    let mut ledger = Ledger::unopened(&Dunning::ledger("A1"));
    ledger.transfer(1);
    bench.save(&north(), ledger).await;
    change(&bench, &north(), "A1", |account, ledger| {
        account.transfer(2);
        ledger.transfer(2);
    })
    .await;
    let of_account = bench.log().await;
    let of_account = of_account
        .iter()
        .filter(|e| e.aggregate_type() == "account");
    let of_account: Vec<Position> = of_account.map(Envelope::position).collect();
    picky.refuse(of_account.first().copied());
    h.run_subscription(&bench.store, &make).await;
    let letters = h.dead_letters(&bench.store, Statements::NAME).await;
    assert_eq!(letters, of_account);
    let read_models = bench.store.read_models(&context);
    let trail = async || {
        let found = read_models.find("A1".to_owned()).await;
        ok(found).map(|row: Statement| row.trail)
    };
    assert_eq!(trail().await.as_deref(), Some("l1 l2 "));
    picky.refuse(None);
    h.replay_all(&bench.store, Statements::NAME).await;
    h.run_subscription(&bench.store, &make).await;
    assert_eq!(trail().await.as_deref(), Some("l1 l2 a1 a2 "));
}

/// Keeps [`Statement`], and fails at a position.
#[derive(Debug, Clone, Default)]
struct Picky(Arc<Mutex<Option<Position>>>);

impl Picky {
    fn refuse(&self, position: Option<Position>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }
}

impl<T: ProjectionTransaction> Projection<T> for Picky {
    type Event = BankEvent;

    fn name(&self) -> &str {
        Statements::NAME
    }

    async fn apply(&self, page: &[Envelope<BankEvent>], transaction: &mut T) -> Result<()> {
        Projection::<T>::apply(&Rows(Statements), page, transaction).await?;
        let refused = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match page.iter().find(|event| Some(event.position()) == refused) {
            Some(event) => Err(Error::other(format!("refused {}", event.position()))),
            None => Ok(()),
        }
    }
}

/// [`Statements`], which says of itself what is wrong: that each row is of one aggregate.
struct Mistaken;

impl RowProjection for Mistaken {
    type Event = BankEvent;
    type Row = Statement;

    const NAME: &'static str = Statements::NAME;
    const ROW_PER_AGGREGATE: bool = true;

    fn key(&self, event: &Envelope<BankEvent>) -> Result<Option<String>> {
        Statements.key(event)
    }

    fn apply(&self, row: &mut Option<Statement>, event: &Envelope<BankEvent>) -> Result<()> {
        Statements.apply(row, event)
    }
}

/// A projection that says that each row is of one aggregate, and has one of two, is halted, whatever
/// its policy: it is not applied event by event, which would hide it.
pub async fn a_row_of_several_aggregates_is_not_said_to_be_of_one<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut uow = bench.unit_of_work(&north());
    let mut account = Account::unopened("A1");
    account.open("ann");
    ok(uow.save(account));
    let mut ledger = Ledger::unopened(&Dunning::ledger("A1"));
    ledger.open("ann");
    ok(uow.save(ledger));
    let _ = ok(uow.commit().await);
    let make = || {
        let policy = FailurePolicy::Park(Parking::at_most(10));
        Subscription::new(Rows(Mistaken)).on_failure(policy)
    };
    h.run_subscription(&bench.store, &make).await;
    let first = bench.log().await.first().map(Envelope::position);
    assert_eq!(h.halted_at(&bench.store, Mistaken::NAME).await, first);
    assert!(
        h.dead_letters(&bench.store, Mistaken::NAME)
            .await
            .is_empty()
    );
    let rows: Vec<Statement> = all(&bench, &system()).await;
    assert!(rows.is_empty(), "{rows:?}");
}

/// A process goes over several aggregates: events of each reach its instance in the order of the log,
/// also those that its own commands lead to.
pub async fn a_process_goes_over_several_aggregates<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for (at, number) in [(north(), "A1"), (south(), "A2")] {
        let mut account = Account::unopened(number);
        account.open("ann");
        (1..=3).for_each(|cents| account.transfer(cents));
        bench.save(&at, account).await;
        bench.counter(if number == "A1" { 1 } else { 2 }).await;
    }
    h.run_process(&bench.store, Bookkeeping).await;
    for (at, number) in [(north(), "A1"), (south(), "A2")] {
        let mut account: Account = bench.load(&at, number.to_owned()).await;
        account.transfer(4);
        account.close();
        bench.save(&at, account).await;
    }
    h.run_process(&bench.store, Bookkeeping).await;
    for (at, number) in [(north(), "A1"), (south(), "A2")] {
        let one = ok(bench.store.process::<Bookkeeping>(&at, number).await);
        let Some(one) = one else {
            panic!("{number} was not started");
        };
        assert!(one.completed_at.is_some(), "{:?}", one.state);
        let trail = trail_of(&bench, number).await;
        let seen = one.state.trail;
        // The ledger is closed behind the end.
        assert_eq!(trail.strip_prefix(seen.as_str()), Some("l5 "));
        let mut uow = bench.unit_of_work(&at);
        let mut ledgers = uow.repository::<Ledger>();
        let events = ok(ledgers.events(Dunning::ledger(number)).await);
        let booked: Vec<_> = events
            .iter()
            .filter_map(|event| event.payload().clone())
            .collect();
        let mut expected: Vec<_> = (1..=4).map(|cents| LedgerEvent::Moved { cents }).collect();
        expected.push(LedgerEvent::Closed);
        assert_eq!(booked, expected);
    }
}

/// Old events, and sealed ones.
#[derive(Debug, Clone, PartialEq, Eq, EventSet)]
enum Mail {
    Letter(LetterEvent),
    Member(MemberEvent),
    Account(AccountEvent),
}

/// Remembers what it is given.
#[derive(Clone, Default)]
struct Mails {
    seen: Arc<Mutex<Vec<Mail>>>,
    types: Option<&'static [&'static str]>,
}

impl Mails {
    fn seen(&self) -> Vec<Mail> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

impl<T: Send> Projection<T> for Mails {
    type Event = Mail;

    fn name(&self) -> &str {
        self.types.map_or("conformance_mails", |types| types[0])
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        self.types
    }

    async fn apply(&self, page: &[Envelope<Mail>], _: &mut T) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(page.iter().map(|event| event.payload().clone()));
        Ok(())
    }
}

/// Each event of a set is read as those of its aggregate are: lifted, under its name of now, sealed.
/// Types that are asked for may be of any aggregate, and must be of one.
pub async fn a_set_reads_each_aggregate_as_it_is_read_alone<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let mut letter = OldLetter::blank(1);
    letter.raise(OldLetterEvent::Stamped { euros: 2 });
    letter.raise(OldLetterEvent::Sent);
    bench.save(&north(), letter).await;
    let keys = bench.store.subject_keys(&north());
    let ada = ok(Subject::new("ada"));
    let name = ok(ok(keys.key(&ada).await).seal(&"Ada".to_owned()));
    let mut member = Member::blank("ada".to_owned());
    member.name(name.clone());
    bench.save(&north(), member).await;
    bench.counter(1).await;
    let mut account = Account::unopened("A1");
    account.close();
    bench.save(&north(), account).await;

    let franked = Mail::Letter(LetterEvent::Franked {
        cents: 200,
        currency: "EUR".to_owned(),
    });
    let posted = Mail::Letter(LetterEvent::Posted);
    let named = Mail::Member(MemberEvent::Named { name });
    let closed = Mail::Account(AccountEvent::Closed);
    let everything = Mails::default();
    let make = || Subscription::new(everything.clone());
    h.run_subscription(&bench.store, &make).await;
    let expected = [franked, posted.clone(), named.clone(), closed.clone()];
    assert_eq!(everything.seen(), expected);
    let Some(Mail::Member(MemberEvent::Named { name })) = everything.seen().get(2).cloned() else {
        panic!("a name was expected");
    };
    let open = async |name: &Sealed<String>| ok(ok(keys.ring([name.subject()]).await).open(name));
    assert_eq!(open(&name).await, Ok("Ada".to_owned()));
    ok(keys.forget(&ada).await);
    assert_eq!(open(&name).await, Err(Forgotten::of(ada)));

    let some = Mails {
        types: Some(&["letter.posted", "account.closed"]),
        ..Mails::default()
    };
    let make = || Subscription::new(some.clone());
    h.run_subscription(&bench.store, &make).await;
    assert_eq!(some.seen(), [posted, closed]);
    let unknown = Mails {
        types: Some(&["account.closed", "counter.added"]),
        ..Mails::default()
    };
    assert_usage(&err(Subscription::<H::Transaction>::new(unknown).check()));
}
