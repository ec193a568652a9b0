//! The state-stored and the event-sourced form of one aggregate behave alike.

use super::Harness;
use super::fixtures::{Account, AccountForm, Ledger};
use super::random::{self, Random};
use super::support::{Bench, begin, north, south, system, time};
use crate::context::RequestContext;
use crate::error::{Error, Result};
use crate::repository::{EventHistory, Repository};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

const ROUNDS: usize = 4;
const STEPS: i64 = 60;
const SLOTS: usize = 4;

/// What is done to accounts, each in a unit of work of its own.
#[derive(Debug)]
enum Command {
    Open(usize),
    /// The next account of the slot: an id is not used again.
    OpenNext(usize),
    /// Loads, changes and saves, with so many events.
    Change(usize, u64, Vec<i64>),
    Close(usize),
    /// Removes it, as it was loaded or changed.
    Remove(usize, Option<i64>),
    /// Saves what was loaded a while before, changed or as it was.
    Stale(usize, Option<i64>),
    RemoveStale(usize, Option<i64>),
    /// Two at once, in this order.
    Pair(usize, usize, i64),
    /// Changes one, looks at it, changes it again.
    Twice(usize, i64),
    /// Saves one twice, changed or as it was, or removes it after the save, with a look at it in
    /// between or without.
    Again {
        slot: usize,
        changes: [Option<i64>; 2],
        removes: bool,
        looks: bool,
    },
    /// Changes one within a savepoint that fails, and another outside.
    Undone(usize, usize, i64),
    /// Changes one, if another that is only read is as it was loaded.
    Guard(usize, usize, i64),
    /// The same, where that was loaded a while before.
    GuardStale(usize, usize, i64),
    /// Changes some by batches of two, one after the other.
    Batches(Vec<usize>, i64),
    /// Its events.
    Events(usize),
}

fn command(random: &mut Random) -> Command {
    let slot = random.below(SLOTS);
    let other = random.below(SLOTS);
    let cents = i64::try_from(random.below(100)).unwrap_or(0) - 50;
    let change = (!random.once_in(3)).then_some(cents);
    match random.below(20) {
        0 => Command::Open(slot),
        1 => Command::OpenNext(slot),
        2 | 3 => {
            let count = random.below(4);
            let cents = (0..count).map(|_| cents).collect();
            Command::Change(slot, random.next(), cents)
        }
        4 => Command::Close(slot),
        5 if random.once_in(3) => Command::Remove(slot, change),
        6 => Command::Stale(slot, change),
        7 if random.once_in(3) => Command::RemoveStale(slot, change),
        8 | 9 => Command::Pair(slot, other, cents),
        10 => Command::Twice(slot, cents),
        11 => Command::Undone(slot, other, cents),
        12 | 13 => Command::Guard(slot, other, cents),
        14 => Command::GuardStale(slot, other, cents),
        15 | 16 => Command::Again {
            slot,
            changes: [change, (!random.once_in(2)).then_some(cents)],
            removes: random.once_in(5),
            looks: random.once_in(3),
        },
        17 | 18 => {
            let slots = (0..2 + random.below(4)).map(|_| random.below(SLOTS));
            Command::Batches(slots.collect(), cents)
        }
        _ => Command::Events(slot),
    }
}

/// One form, driven by the commands.
struct Form<'b, H: Harness, A> {
    bench: &'b Bench<'b, H>,
    /// How many accounts each slot had before its own of now.
    past: [usize; SLOTS],
    kept: Vec<Option<A>>,
}

impl<'b, H: Harness, A: AccountForm> Form<'b, H, A> {
    fn new(bench: &'b Bench<'b, H>) -> Self {
        Self {
            bench,
            past: [0; SLOTS],
            kept: (0..SLOTS).map(|_| None).collect(),
        }
    }

    fn number(&self, slot: usize) -> String {
        format!("A{slot}.{}", self.past[slot])
    }

    /// What can be seen of a command: what it read, its error, what it wrote.
    async fn run(&mut self, context: &RequestContext, command: &Command) -> String {
        let mut seen = Vec::new();
        let done = match command {
            Command::Batches(slots, cents) => self.in_batches(context, slots, *cents).await,
            _ => self
                .in_one(context, command, &mut seen)
                .await
                .unwrap_or_else(|error| describe_error(&error)),
        };
        for slot in 0..SLOTS {
            // Kept a while, so that it may become stale.
            if self.kept[slot].is_none() {
                self.kept[slot] = self.bench.find(&system(), self.number(slot)).await;
            }
        }
        format!("{seen:?} {done}")
    }

    /// In one unit of work.
    async fn in_one(
        &mut self,
        context: &RequestContext,
        command: &Command,
        seen: &mut Vec<String>,
    ) -> Result<String> {
        let mut uow = self.bench.unit_of_work(context);
        if let Err(error) = self.stage(&mut uow, command, seen).await {
            uow.rollback().await;
            return Err(error);
        }
        let receipt = uow.commit().await?;
        Ok(format!("{} events", receipt.events().len()))
    }

    /// Changes those that are there and saves new ones, with a commit after each two.
    async fn in_batches(
        &mut self,
        context: &RequestContext,
        slots: &[usize],
        cents: i64,
    ) -> String {
        let items = slots.iter().map(|slot| (self.number(*slot), cents));
        let items: Vec<(String, i64)> = items.collect();
        let store = &self.bench.store;
        let batches = store.execute_in_batches(context, 2, items, async |uow, (number, cents)| {
            let found = uow.repository::<A>().find(number.clone()).await?;
            let mut account = found.unwrap_or_else(|| A::unopened(&number));
            account.transfer(cents);
            uow.save(account)
        });
        let done = batches.await;
        let (committed, error) = match &done {
            Ok(committed) => (committed, String::new()),
            Err(error) => (error.committed(), describe_error(error.cause())),
        };
        format!("{} by {}, {error}", committed.items(), committed.commits())
    }

    async fn stage(
        &mut self,
        uow: &mut <H::Store as Store>::UnitOfWork,
        command: &Command,
        seen: &mut Vec<String>,
    ) -> Result<()> {
        match command {
            Command::Batches(..) => Ok(()),
            Command::Guard(read, written, cents) | Command::GuardStale(read, written, cents) => {
                let read = match command {
                    Command::GuardStale(..) => self.kept[*read].take(),
                    _ => uow.repository::<A>().find(self.number(*read)).await?,
                };
                if let Some(read) = &read {
                    uow.guard(read)?;
                }
                self.transfer(uow, *written, *cents).await
            }
            Command::Events(slot) => {
                let events = uow.repository::<A>().events(self.number(*slot)).await?;
                seen.extend(events.iter().map(|event| {
                    let (version, name) = (event.aggregate_version(), event.event_type());
                    let (_, name) = name.split_once('.').unwrap_or_default();
                    format!("{version} {name} {:?}", event.occurred_at())
                }));
                Ok(())
            }
            Command::Open(slot) | Command::OpenNext(slot) => {
                if matches!(command, Command::OpenNext(_)) {
                    self.past[*slot] += 1;
                }
                let mut account = A::unopened(&self.number(*slot));
                account.open("ann");
                uow.save(account)
            }
            Command::Change(slot, how, cents) => {
                let mut account = uow.get::<A>(self.number(*slot)).await?;
                seen.push(describe(&account));
                cents.iter().for_each(|cents| account.transfer(*cents));
                if how.is_multiple_of(3) {
                    account.open("ben");
                }
                uow.save(account)
            }
            Command::Close(slot) => {
                let mut account = uow.get::<A>(self.number(*slot)).await?;
                account.close();
                uow.save(account)
            }
            Command::Remove(slot, cents) => {
                let mut account = uow.get::<A>(self.number(*slot)).await?;
                cents.iter().for_each(|cents| account.transfer(*cents));
                uow.remove(account)
            }
            Command::Stale(slot, cents) => match self.kept[*slot].take() {
                Some(mut account) => {
                    cents.iter().for_each(|cents| account.transfer(*cents));
                    uow.save(account)
                }
                None => Ok(()),
            },
            Command::RemoveStale(slot, cents) => match self.kept[*slot].take() {
                Some(mut account) => {
                    cents.iter().for_each(|cents| account.transfer(*cents));
                    uow.remove(account)
                }
                None => Ok(()),
            },
            Command::Pair(one, other, cents) => {
                for slot in [one, other] {
                    let found = uow.repository::<A>().find(self.number(*slot)).await?;
                    let mut account = found.unwrap_or_else(|| A::unopened(&self.number(*slot)));
                    seen.push(describe(&account));
                    account.transfer(*cents);
                    uow.save(account)?;
                }
                Ok(())
            }
            Command::Twice(slot, cents) => {
                for _ in 0..2 {
                    let mut account = uow.get::<A>(self.number(*slot)).await?;
                    seen.push(describe(&account));
                    account.transfer(*cents);
                    uow.save(account)?;
                }
                Ok(())
            }
            Command::Again {
                slot,
                changes: [first, second],
                removes,
                looks,
            } => {
                let mut account = uow.get::<A>(self.number(*slot)).await?;
                let mut again = account.clone();
                first.iter().for_each(|cents| account.transfer(*cents));
                uow.save(account)?;
                if *looks {
                    again = uow.get::<A>(self.number(*slot)).await?;
                    seen.push(describe(&again));
                }
                second.iter().for_each(|cents| again.transfer(*cents));
                let done = match removes {
                    true => uow.remove(again),
                    false => uow.save(again),
                };
                // What was staged before stays staged.
                seen.push(done.map_or_else(|error| describe_error(&error), |()| String::new()));
                Ok(())
            }
            Command::Undone(undone, kept, cents) => {
                let (id, cents) = (self.number(*undone), *cents);
                let failed = uow
                    .savepoint(async |uow| {
                        let mut account = uow.get::<A>(id.clone()).await?;
                        account.transfer(cents);
                        uow.save(account)?;
                        let account = uow.get::<A>(id.clone()).await?;
                        Err::<(), _>(Error::other(describe(&account)))
                    })
                    .await;
                seen.push(failed.map_or_else(|error| describe_error(&error), |()| String::new()));
                let mut account = uow.get::<A>(self.number(*kept)).await?;
                seen.push(describe(&account));
                account.close();
                uow.save(account)
            }
        }
    }

    /// Loads one, changes it, and saves it.
    async fn transfer<U: UnitOfWork>(&self, uow: &mut U, slot: usize, cents: i64) -> Result<()> {
        let mut account = uow.get::<A>(self.number(slot)).await?;
        account.transfer(cents);
        uow.save(account)
    }

    /// Everything that there is at the end, in each scope, and the log.
    async fn everything(&self) -> Vec<String> {
        let mut all = Vec::new();
        for context in [north(), south(), system()] {
            for (slot, past) in self.past.into_iter().enumerate() {
                for life in 0..=past {
                    let number = format!("A{slot}.{life}");
                    let account: Option<A> = self.bench.find(&context, number).await;
                    all.push(account.as_ref().map_or("none".to_owned(), describe));
                }
            }
        }
        let log = self.bench.log().await;
        let own = log.iter().filter(|event| event.aggregate_type() == A::TYPE);
        all.extend(own.map(|event| {
            let (_, name) = event.event_type().split_once('.').unwrap_or_default();
            format!(
                "{} {} {name} {} {:?} {:?} {}",
                event.aggregate_id_str(),
                event.aggregate_version(),
                event.payload().as_str(),
                event.tenant(),
                event.metadata().actor,
                event.occurred_at(),
            )
        }));
        all
    }
}

fn describe<A: AccountForm>(account: &A) -> String {
    let root = account.root();
    format!(
        "{:?} v{} {:?} {:?}",
        account.contents(),
        root.version(),
        root.tenant(),
        root.stamps()
    )
}

/// The error without the name of the form.
fn describe_error(error: &Error) -> String {
    match error {
        Error::Conflict {
            id,
            expected,
            found,
            ..
        } => format!("conflict {id} {expected} {found}"),
        Error::NotFound { id, .. } => format!("not found {id}"),
        Error::AlreadyExists { id, .. } => format!("exists {id}"),
        Error::TenantRequired { id, .. } => format!("tenant required {id}"),
        Error::Store(error) => format!("store {:?}", error.kind()),
        error => error.to_string(),
    }
}

/// The same commands on both forms: the same results, events and errors.
pub async fn both_forms_behave_alike<H: Harness>(h: &H) {
    for seed in (random::seed()..).take(ROUNDS) {
        behave_alike(h, seed).await;
    }
}

async fn behave_alike<H: Harness>(h: &H, seed: u64) {
    let bench = begin(h).await;
    let mut random = Random::new(seed);
    let mut stored = Form::<H, Account>::new(&bench);
    let mut sourced = Form::<H, Ledger>::new(&bench);
    for step in 1..=STEPS {
        bench.clock.set(time(step));
        let context = match random.below(6) {
            0 => south(),
            1 => system(),
            _ => north(),
        };
        let command = command(&mut random);
        let as_row = stored.run(&context, &command).await;
        let as_events = sourced.run(&context, &command).await;
        assert_eq!(
            as_row, as_events,
            "CQRS_SEED={seed}: the forms differ at step {step}, {command:?}"
        );
    }
    let (as_rows, as_events) = (stored.everything().await, sourced.everything().await);
    assert_eq!(
        as_rows, as_events,
        "CQRS_SEED={seed}: the forms differ at the end"
    );
}
