//! The complete example of the guide, compiled and run on SQLite in memory; and the checks that
//! `guide.md` shows no code that is not compiled here or in `guide_snippets.rs`.

mod guide_snippets;

// user code
use cqrs_core::{
    Aggregate, AggregateRoot, DomainError, DomainEvent, Entity, Envelope, Id, ReadModel,
    ReadModels, Repository, RequestContext, Result, Root, RowProjection, Store, TenantId,
    UnitOfWork, ValueObject, repository,
};
use cqrs_sqlx::SqliteStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
pub enum OrderEvent {
    Placed { customer: String, total: i64 },
    Paid,
}

#[derive(Debug)]
pub struct AlreadyPaid;

impl std::fmt::Display for AlreadyPaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the order is paid already")
    }
}

impl std::error::Error for AlreadyPaid {}
impl DomainError for AlreadyPaid {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueObject)]
pub enum OrderStatus {
    Open,
    Paid,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "orders", event = OrderEvent, tenant, audit)]
pub struct Order {
    #[aggregate(id)]
    id: Id<Order>,
    #[aggregate(root)]
    root: Root<OrderEvent>,
    customer: String,
    total: i64,
    status: OrderStatus,
}

impl Order {
    pub fn place(customer: &str, total: i64) -> Self {
        let (id, mut root, customer) = (Id::new(), Root::new(), customer.to_owned());
        root.raise(OrderEvent::Placed {
            customer: customer.clone(),
            total,
        });
        Self {
            id,
            root,
            customer,
            total,
            status: OrderStatus::Open,
        }
    }

    pub fn pay(&mut self) -> Result<(), AlreadyPaid> {
        if self.status == OrderStatus::Paid {
            return Err(AlreadyPaid);
        }
        self.status = OrderStatus::Paid;
        self.root.raise(OrderEvent::Paid);
        Ok(())
    }
}

#[repository]
pub trait Orders: Repository<Order> {
    #[find(status == OrderStatus::Open, order_by(total.desc(), created_at.asc()))]
    async fn find_open(&mut self, limit: u32) -> Result<Vec<Order>>;

    #[find(customer == name && total >= 100)]
    async fn count_large(&mut self, name: &str) -> Result<u64>;
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "order_list", tenant)]
pub struct OrderRow {
    #[read_model(key)]
    pub id: Id<Order>,
    pub customer: String,
    pub paid: bool,
}

pub struct OrderList;

impl RowProjection for OrderList {
    type Event = OrderEvent;
    type Row = OrderRow;
    const NAME: &'static str = "order_list";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<Id<Order>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<OrderRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        match (event.payload(), row) {
            (OrderEvent::Placed { customer, .. }, row) => {
                let (id, customer) = (event.aggregate_id()?, customer.clone());
                *row = Some(OrderRow {
                    id,
                    customer,
                    paid: false,
                });
            }
            (OrderEvent::Paid, Some(row)) => row.paid = true,
            (OrderEvent::Paid, None) => {}
        }
        Ok(())
    }
}

pub async fn pay<U: UnitOfWork>(uow: &mut U, id: Id<Order>) -> Result<()> {
    let mut order = uow.get::<Order>(id).await?;
    order.pay()?;
    uow.save(order)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let _projector = store.projector().rows(OrderList).start().await?;

    let context = RequestContext::tenant(TenantId::new("north")?).with_actor("kim");
    let order = Order::place("Ada", 120);
    let id = *order.id();
    store
        .execute(&context, async |uow| uow.save(order.clone()))
        .await?;
    let receipt = store
        .execute(&context, async |uow| pay(uow, id).await)
        .await?;

    store.wait_for(&receipt, OrderList::NAME).await?;
    let row = store.read_models(&context).find::<OrderRow>(id).await?;
    assert_eq!(
        row,
        Some(OrderRow {
            id,
            customer: "Ada".into(),
            paid: true
        })
    );
    Ok(())
}
// end of user code

#[test]
fn the_example_runs() {
    main().expect("the example runs");
}

const SOURCES: [&str; 2] = [
    include_str!("guide_example.rs"),
    include_str!("guide_snippets.rs"),
];
const GUIDE: &str = include_str!("guide.md");

/// The lines without what stands around them: the guide may indent in another way.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_example_is_short_and_the_guide_says_how_short() {
    let (_, code) = SOURCES[0]
        .split_once("// user code\n")
        .expect("a first marker");
    let (code, _) = code
        .split_once("// end of user code\n")
        .expect("a last marker");
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    let count = lines(code).iter().filter(|line| is_code(line)).count();
    assert!(count < 100, "{count} lines");
    assert!(
        GUIDE.contains(&format!("```rust\n{code}```\n")),
        "the guide has the example"
    );
    assert!(
        GUIDE.contains(&format!("{count} lines")),
        "the guide says {count} lines"
    );
}

#[test]
fn every_rust_block_of_the_guide_is_compiled() {
    let sources = SOURCES.map(lines);
    for block in GUIDE.split("```rust\n").skip(1) {
        let (block, _) = block.split_once("```\n").expect("the block ends");
        let wanted = lines(block);
        let is_compiled =
            |source: &Vec<&str>| source.windows(wanted.len()).any(|window| window == wanted);
        assert!(
            sources.iter().any(is_compiled),
            "this is not compiled:\n{block}"
        );
    }
}
