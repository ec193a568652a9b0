//! Running commands on one store, and writing down what is seen.

use std::sync::Arc;

use uuid::Uuid;

use super::super::Harness;
use super::super::fixtures::{
    Counter, CounterTotal, LabelUse, Ledger, Locker, LockerEntry, Parcel, ParcelEntry,
};
use super::super::support::{Bench, begin_at, north, ok, south, system, time};
use super::command::{Action, Caller, Command, End, Kind, NEIGHBOURS, Step};
use super::describe;
use super::subject::{Kept, Queried, Subject};
use crate::clock::ManualClock;
use crate::context::RequestContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::read_model::{ReadModel, ReadModels};
use crate::repository::{EventHistory, Repository};
use crate::sourced::AsOf;
use crate::specification::{PageRequest, Query};
use crate::store::Store;
use crate::unit_of_work::UnitOfWork;

/// A store on its way through the commands.
pub(super) struct Run<'h, H: Harness> {
    bench: Bench<'h, H>,
    kept: Kept,
    /// How many slots of ledgers were used: no query finds them.
    ledgers: usize,
    correlation_id: Uuid,
}

impl<'h, H: Harness> Run<'h, H> {
    pub(super) async fn begin(harness: &'h H, clock: Arc<ManualClock>, seed: u64) -> Self {
        Self {
            bench: begin_at(harness, clock).await,
            kept: Kept::default(),
            ledgers: 0,
            correlation_id: Uuid::from_u64_pair(1, seed),
        }
    }

    /// Runs a command up to its first error.
    pub(super) async fn run(&mut self, command: &Command) -> Vec<String> {
        let context = match command.caller {
            Caller::North => north(),
            Caller::South => south(),
            Caller::System => system(),
        };
        let context = context.with_correlation_id(self.correlation_id);
        let mut uow = self.bench.unit_of_work(&context);
        let mut seen = Vec::new();
        let several = command.steps.len() > 1;
        for step in &command.steps {
            if matches!(step.kind, Kind::Ledger) {
                self.ledgers = self.ledgers.max(step.slot + 1);
            }
            match run_step(&mut uow, &mut self.kept, *step).await {
                Ok(text) => seen.push(text),
                Err(error) if several && is_refusal(&error) => {
                    seen.push(REFUSED.to_owned());
                    return seen;
                }
                Err(error) => {
                    seen.push(describe::error(&error));
                    if !is_from_writing(&error) {
                        return seen;
                    }
                    break;
                }
            }
        }
        if let End::Drop = command.end {
            return seen;
        }
        seen.push(match uow.commit().await {
            Ok(receipt) => {
                let events = receipt.events().len();
                format!(
                    "{events} events, position: {}",
                    receipt.position().is_some()
                )
            }
            Err(error) if several && is_refusal(&error) => REFUSED.to_owned(),
            Err(error) => describe::error(&error),
        });
        if let End::CommitAndProject = command.end {
            self.bench.project().await;
        }
        seen
    }

    /// All aggregates, the whole log, all read models.
    pub(super) async fn everything(&self) -> [Vec<String>; 9] {
        self.bench.project().await;
        let log = self.bench.log().await;
        [
            self.aggregates::<Parcel>().await,
            self.aggregates::<Counter>().await,
            self.aggregates::<Locker>().await,
            self.ledgers().await,
            log.iter().map(describe::event).collect(),
            self.rows::<ParcelEntry>().await,
            self.rows::<LabelUse>().await,
            self.rows::<CounterTotal>().await,
            self.rows::<LockerEntry>().await,
        ]
    }

    async fn ledgers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for context in [north(), south(), system()] {
            for slot in 0..self.ledgers {
                let ledger: Option<Ledger> = self.bench.find(&context, Ledger::id_of(slot)).await;
                found.push(ledger.map_or_else(|| NOT_THERE.to_owned(), |ledger| ledger.describe()));
            }
        }
        found
    }

    async fn aggregates<A: Queried>(&self) -> Vec<String> {
        let mut uow = self.bench.unit_of_work(&system());
        let found = ok(uow.repository::<A>().query(Query::all()).await);
        found.iter().map(A::describe).collect()
    }

    async fn rows<R: ReadModel>(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for context in [north(), south(), RequestContext::system()] {
            let read_models = self.bench.store.read_models(&context);
            let mut found: Vec<String> = ok(read_models.query(Query::<R>::all()).await)
                .iter()
                .map(|row| format!("{:?}", ok(row.to_row())))
                .collect();
            // Rows of several tenants may have one key, and no order between them.
            found.sort();
            rows.append(&mut found);
        }
        rows
    }
}

const NOT_THERE: &str = "not there";

/// What is seen of a refusal where several writes may be to blame: which of them the error names
/// is not defined.
const REFUSED: &str = "refused";

fn is_refusal(error: &Error) -> bool {
    is_from_writing(error) || error.is_not_found()
}

/// Whether the store itself refused a staged write, so that the unit of work is spent: what its
/// commit says then is compared too.
fn is_from_writing(error: &Error) -> bool {
    matches!(error, Error::Conflict { .. } | Error::AlreadyExists { .. })
}

async fn run_step<U: UnitOfWork>(uow: &mut U, kept: &mut Kept, step: Step) -> Result<String> {
    let is_look = matches!(step.action, Action::Query | Action::Count);
    match step.kind {
        Kind::Parcel if is_look => look::<Parcel, U>(uow, step).await,
        Kind::Counter if is_look => look::<Counter, U>(uow, step).await,
        Kind::Locker if is_look => look::<Locker, U>(uow, step).await,
        Kind::Ledger if is_look => look_back(uow, step).await,
        Kind::Parcel => run_on::<Parcel, U>(uow, kept, step).await,
        Kind::Counter => run_on::<Counter, U>(uow, kept, step).await,
        Kind::Locker => run_on::<Locker, U>(uow, kept, step).await,
        Kind::Ledger => run_on::<Ledger, U>(uow, kept, step).await,
    }
}

/// Finds or counts rows.
async fn look<A: Queried, U: UnitOfWork>(
    uow: &mut U,
    Step { action, how, .. }: Step,
) -> Result<String> {
    let mut repository = uow.repository::<A>();
    if matches!(action, Action::Query) {
        let found = repository.query(A::query(how)).await?;
        let found: Vec<String> = found.iter().map(A::describe).collect();
        return Ok(found.join("\n"));
    }
    let specification = A::specification(how);
    let count = repository.count(specification.clone()).await?;
    let any = repository.exists(specification).await?;
    Ok(format!("{count}, any: {any}"))
}

/// Looks at the events of an event-sourced aggregate, and at what it was.
async fn look_back<U: UnitOfWork>(
    uow: &mut U,
    Step {
        action, slot, how, ..
    }: Step,
) -> Result<String> {
    let mut repository = uow.repository::<Ledger>();
    let (id, few) = (Ledger::id_of(slot), how % 7);
    if matches!(action, Action::Query) {
        let request = match how % 3 {
            0 => PageRequest::first(1 + few as u32),
            _ => PageRequest::skip(few, 3).with_total(),
        };
        let page = repository.events_page(id.clone(), request).await?;
        let mut items = page.items;
        if let Some(next) = page.next {
            let behind = PageRequest::after(next, 1 + few as u32);
            items.extend(repository.events_page(id, behind).await?.items);
        }
        let events = items.iter().map(|event| {
            let (version, kind) = (event.aggregate_version(), event.event_type());
            format!("{version} {kind} {:?}", event.occurred_at())
        });
        let events: Vec<String> = events.collect();
        return Ok(format!("{events:?} of {:?}", page.total));
    }
    let at = match how % 4 {
        0 | 2 => AsOf::Version(how >> 8 & 15),
        // The clock shows the number of the command.
        1 => AsOf::Time(time((how >> 8 & 127) as i64)),
        _ => {
            let events = repository.events(id.clone()).await?;
            let one = events.get((how >> 8) as usize % events.len().max(1));
            AsOf::Time(one.map_or_else(|| time(0), Envelope::occurred_at))
        }
    };
    let then = repository.find_as_of(id, at).await?;
    Ok(then.map_or_else(|| NOT_THERE.to_owned(), |then| then.describe()))
}

async fn run_on<A: Subject, U: UnitOfWork>(
    uow: &mut U,
    kept: &mut Kept,
    Step {
        action, slot, how, ..
    }: Step,
) -> Result<String> {
    let mut repository = uow.repository::<A>();
    match action {
        Action::Create | Action::CreateAgain => repository.save(A::new(slot, how))?,
        Action::SaveRefused => {
            let mut spoiled = A::new(slot, how);
            spoiled.spoil();
            repository.save(spoiled)?;
        }
        Action::ChangeMany => return change_many(&mut repository, slot, how).await,
        Action::SaveKept | Action::RemoveKept | Action::GuardKept => {
            let Some(mut aggregate) = A::kept(kept).get(&slot).cloned() else {
                return Ok("nothing kept".to_owned());
            };
            match action {
                Action::RemoveKept => repository.remove(aggregate)?,
                Action::GuardKept => repository.guard(&aggregate)?,
                _ => {
                    if !how.is_multiple_of(4) {
                        aggregate.change(how >> 2);
                    }
                    repository.save(aggregate)?;
                }
            }
        }
        _ => {
            let Some(mut aggregate) = repository.find(A::id_of(slot)).await? else {
                return Ok(NOT_THERE.to_owned());
            };
            let text = aggregate.describe();
            if (how >> 40).is_multiple_of(4) || !A::kept(kept).contains_key(&slot) {
                A::kept(kept).insert(slot, aggregate.clone());
            }
            match action {
                Action::Change => {
                    aggregate.change(how);
                    repository.save(aggregate)?;
                }
                Action::SaveUnchanged => repository.save(aggregate)?,
                Action::Guard => repository.guard(&aggregate)?,
                Action::Remove => repository.remove(aggregate)?,
                _ => {}
            }
            return Ok(text);
        }
    }
    Ok("staged".to_owned())
}

/// Loads some, then stages them all: one commit, no reads between.
async fn change_many<A: Subject>(
    repository: &mut impl Repository<A>,
    slot: usize,
    how: u64,
) -> Result<String> {
    let mut loaded = Vec::new();
    for offset in (0..NEIGHBOURS).filter(|offset| how >> offset & 1 == 1) {
        loaded.extend(repository.find(A::id_of(slot + offset)).await?);
    }
    let count = loaded.len();
    for (mut aggregate, by) in loaded.into_iter().zip(8..) {
        aggregate.change(how >> by);
        repository.save(aggregate)?;
    }
    Ok(format!("{count} changed"))
}
