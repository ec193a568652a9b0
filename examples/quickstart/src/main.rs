//! The framework in one file: an aggregate with a rule, finders, a read model, and commands.
//!
//! Run it with `cargo run --release -p quickstart`; it needs nothing installed (SQLite in memory).
//! It prints each command and how long after its commit the read model showed it, then the read
//! model, and the log: position, tenant, aggregate, id, version, event type and content.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use cqrs_core::*;
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    Created { name: String },
    StopAdded { stops: u32 },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = PlanEvent, tenant, soft_delete, audit)]
struct Plan {
    #[aggregate(id)]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    stops: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("the vehicle makes no more than 3 stops")]
struct Full;
impl DomainError for Full {}

impl Plan {
    fn create(name: &str) -> Self {
        let (id, name, mut root, stops) = (Id::new(), name.to_owned(), Root::new(), 0);
        root.raise(PlanEvent::Created { name });
        Self { id, root, stops }
    }

    fn add_stop(&mut self) -> Result<(), Full> {
        let stops = self.stops + 1;
        if stops > 3 {
            return Err(Full);
        }
        self.stops = stops;
        self.root.raise(PlanEvent::StopAdded { stops });
        Ok(())
    }
}

#[repository]
trait Plans: Repository<Plan> {
    #[find(stops < 3, order_by(created_at.asc()))]
    async fn find_with_room(&mut self, limit: u32) -> Result<Vec<Plan>>;
    #[find(stops >= 3)]
    async fn count_full(&mut self) -> Result<u64>;
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list", tenant)]
struct PlanRow {
    #[read_model(key)]
    id: Id<Plan>,
    name: String,
    stops: u32,
}

struct PlanList;
impl RowProjection for PlanList {
    type Event = PlanEvent;
    type Row = PlanRow;
    const NAME: &'static str = "plan_list";

    fn key(&self, event: &Envelope<PlanEvent>) -> Result<Option<Id<Plan>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<PlanRow>, event: &Envelope<PlanEvent>) -> Result<()> {
        let (id, name, stops) = (event.aggregate_id()?, String::new(), 0);
        let row = row.get_or_insert(PlanRow { id, name, stops });
        match event.payload() {
            PlanEvent::Created { name } => row.name.clone_from(name),
            PlanEvent::StopAdded { stops } => row.stops = *stops,
        }
        Ok(())
    }
}

async fn add_stop<U: UnitOfWork>(uow: &mut U, id: Id<Plan>, tries: &AtomicU32) -> Result<()> {
    tries.fetch_add(1, Relaxed);
    let mut plan = uow.get::<Plan>(id).await?;
    plan.add_stop()?;
    uow.save(plan)
}

async fn visible(store: &SqliteStore, receipt: CommitReceipt) -> Result<String> {
    let committed = Instant::now();
    store.wait_for(&receipt, PlanList::NAME).await?;
    Ok(format!("visible after {:.1?}", committed.elapsed()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    let tables = [Plan::table(), PlanRow::table()];
    store.create_tables(&tables).await?;
    let _projector = store.projector().rows(PlanList).start().await?;
    let north = RequestContext::tenant("north".parse()?);
    for name in ["harbour", "airport"] {
        let create = async |uow| uow.save(Plan::create(name));
        let receipt = store.execute(&north, create).await?;
        println!("{name} created, {}", visible(&store, receipt).await?);
    }
    let mut uow = store.unit_of_work(&north);
    let (id, tries) = (
        uow.repository().find_with_room(1).await?[0].id,
        AtomicU32::new(0),
    );
    let add = async || {
        let add = async |uow: &mut _| add_stop(uow, id, &tries).await;
        visible(&store, store.execute(&north, add).await?).await
    };
    let (a, b, c) = tokio::try_join!(add(), add(), add())?;
    println!("3 stops added at the same time in {tries:?} tries: {a}; {b}; {c}");
    println!("one more refused: {}", add().await.unwrap_err());
    println!("full plans: {}\n", uow.repository().count_full().await?);
    let list = store.read_models(&north);
    for row in list.query::<PlanRow>(Query::all()).await? {
        println!("{:<8} {:>2} stops", row.name, row.stops);
    }
    let log = store.projector().relay("log", ConsoleEventBus::stdout());
    println!("\n{} events in the log", log.run_until_idle().await?);
    Ok(())
}
