//! What `specification.md` shows.

use cqrs_core::{
    Aggregate, Envelope, InMemoryStore, Query, ReadModel, ReadModels, Repository, RequestContext,
    Result, Root, RowProjection, Specification, Store, TextValue, UnitOfWork, ValueObject,
    repository,
};

use super::{Order, OrderEvent};

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum State {
    Ready,
    Waiting,
}

impl TextValue for State {}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Origin {
    zone: String,
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "shipment", tenant)]
struct Shipment {
    #[read_model(key)]
    id: String,
    state: State,
    weight: u32,
    city: String,
    note: Option<String>,
    #[mapper(flatten)]
    origin: Origin,
    details: serde_json::Value,
}

impl Shipment {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Ready,
            weight: 200,
            city: "Graz".to_owned(),
            note: None,
            origin: Origin {
                zone: "north".to_owned(),
            },
            details: serde_json::json!({"boxes": [1.5]}),
        }
    }
}

struct Shipments;

impl RowProjection for Shipments {
    type Event = OrderEvent;
    type Row = Shipment;
    const NAME: &'static str = "shipment";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<String>> {
        Ok(Some(event.aggregate_id_str().to_owned()))
    }

    fn apply(&self, row: &mut Option<Shipment>, event: &Envelope<OrderEvent>) -> Result<()> {
        *row = Some(Shipment::new(event.aggregate_id_str()));
        Ok(())
    }
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "depot", event = OrderEvent)]
struct Depot {
    #[aggregate(id)]
    name: String,
    #[aggregate(root)]
    root: Root<OrderEvent>,
    state: State,
    #[mapper(flatten)]
    origin: Origin,
    #[mapper(json)]
    tags: Vec<String>,
}

#[repository]
trait Depots: Repository<Depot> {
    #[find(origin.zone == zone && name.starts_with(start))]
    async fn find_within(&mut self, zone: &str, start: &str) -> Result<Vec<Depot>>;

    #[find(state.in_(states) && tags.index(0).as_text() == first)]
    async fn count_tagged(&mut self, states: Vec<State>, first: &str) -> Result<u64>;
}

fn search(words: &[&str], states: Vec<State>) -> Specification<Shipment> {
    let f = Shipment::fields();
    let words = words.iter().map(|word| f.city.contains(*word));
    Specification::any_of(words) & f.state.in_(states)
}

#[tokio::test]
async fn the_page_on_specifications_is_true() -> Result<(), Box<dyn std::error::Error>> {
    let store = InMemoryStore::new();
    store.subscribe_rows(Shipments)?;
    let ctx = RequestContext::tenant("north".parse()?);
    let order = Order::place("Ada");
    let placed = store
        .execute(&ctx, async |uow| uow.save(order.clone()))
        .await?;
    store.wait_for(&placed, Shipments::NAME).await?;
    let all = store.read_models(&ctx).query(Query::all()).await?;
    let [shipment]: [Shipment; 1] = all.try_into().expect("one was projected");

    let f = Shipment::fields();
    let due: Specification<Shipment> = f.state.in_([State::Ready, State::Waiting])
        & f.weight.between(100_u32, 500_u32)
        & (f.city.starts_with("Gra") | f.note.is_null())
        & !f.origin.zone.eq("restricted")
        & f.details.key("boxes").index(0).as_f64().ge(0.5);
    assert!(due.is_satisfied_by(&shipment)?);
    let found = store
        .read_models(&ctx)
        .query(Query::filter(due.clone()))
        .await?;
    assert_eq!(found.first(), Some(&shipment));

    let some = search(&["Gr", "xx"], vec![State::Ready]) & f.state.like("rea__");
    assert_eq!(store.read_models(&ctx).count(some).await?, 1);
    let none = search(&[], vec![State::Ready]);
    assert_eq!(store.read_models(&ctx).count(none).await?, 0);

    let one = f.weight.ge(3_u32) & f.city.eq("Graz");
    assert_eq!(one.describe(), r#"weight >= 3 and city = "Graz""#);
    assert_eq!(one.shape(), "weight >= ? and city = ?");
    assert_eq!(
        one.cache_key(),
        (f.weight.ge(3_u32) & f.city.eq("Graz")).cache_key()
    );
    assert_ne!(one.cache_key(), f.weight.ge(3_u32).cache_key());

    let mut uow = store.unit_of_work(&ctx);
    let mut depots = uow.repository::<Depot>();
    depots.save(Depot {
        name: "Graz".to_owned(),
        root: Root::new(),
        state: State::Ready,
        origin: shipment.origin,
        tags: vec!["x".to_owned()],
    })?;
    assert_eq!(depots.find_within("north", "Gr").await?.len(), 1);
    assert_eq!(depots.count_tagged(vec![State::Ready], "x").await?, 1);
    Ok(())
}
