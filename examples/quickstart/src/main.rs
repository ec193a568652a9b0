//! The framework in one file: an aggregate with a rule and finders, a read model, and commands that
//! meet on one plan. Run `cargo run --release -p quickstart`; nothing needs to be installed. Prints
//! what happens, how long after its commit it is visible, the read model as a table, and the log.

use cqrs_core::*;
use cqrs_sqlx::{SqliteStore, SqliteUnitOfWork};
use std::{sync::atomic::AtomicU32, sync::atomic::Ordering::Relaxed, time::Instant};

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    Created { stops: u32 },
    StopAdded { stops: u32 },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = PlanEvent, tenant, soft_delete, audit)]
struct Plan {
    #[aggregate(id)]
    name: String,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    stops: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("the vehicle makes no more than 3 stops")]
struct Full;
impl DomainError for Full {}

impl Plan {
    fn create(name: &str, stops: u32) -> Self {
        let (name, mut root) = (name.to_owned(), Root::new());
        root.raise(PlanEvent::Created { stops });
        Self { name, root, stops }
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
struct Row {
    #[read_model(key)]
    name: String,
    stops: u32,
}

struct PlanList;
impl RowProjection for PlanList {
    type Event = PlanEvent;
    type Row = Row;
    const NAME: &'static str = "plan_list";
    fn key(&self, event: &Envelope<PlanEvent>) -> Result<Option<String>> {
        Ok(Some(event.aggregate_id()?))
    }
    fn apply(&self, row: &mut Option<Row>, event: &Envelope<PlanEvent>) -> Result<()> {
        let (PlanEvent::Created { stops } | PlanEvent::StopAdded { stops }) = *event.payload();
        let name = event.aggregate_id()?;
        *row = Some(Row { name, stops });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store.create_tables(&[Plan::table(), Row::table()]).await?;
    let _projector = store.projector().rows(PlanList).start().await?;
    let north = RequestContext::tenant("north".parse()?);
    for name in ["harbour", "airport"] {
        let create = async |uow: &mut SqliteUnitOfWork| uow.save(Plan::create(name, 0));
        store.execute(&north, create).await?;
        println!("created plan {name}");
    }
    let tries = AtomicU32::new(0);
    let add_stop = async || {
        let work = async |uow: &mut SqliteUnitOfWork| {
            tries.fetch_add(1, Relaxed);
            let mut plan = uow.get::<Plan>("harbour".to_owned()).await?;
            plan.add_stop()?;
            uow.save(plan)
        };
        let receipt = store.execute(&north, work).await?;
        let committed = Instant::now();
        store.wait_for(&receipt, PlanList::NAME).await?;
        anyhow::Ok(committed.elapsed())
    };
    let visible_after = tokio::try_join!(add_stop(), add_stop(), add_stop())?;
    println!(
        "added 3 stops to harbour at once in {tries:?} tries, visible after {visible_after:.1?}"
    );
    let refusal = add_stop().await.expect_err("it is full");
    println!("a 4th is refused: {refusal}");
    let full = store.unit_of_work(&north).repository().count_full().await?;
    println!("full plans: {full}\n\nplan     stops");
    for row in store.read_models(&north).query::<Row>(Query::all()).await? {
        println!("{:<8} {:>5}", row.name, row.stops);
    }
    let log = store.projector().relay("log", ConsoleEventBus::stdout());
    println!("{} events in the log", log.run_until_idle().await?);
    Ok(())
}
