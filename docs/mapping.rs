//! What `mapping.md` shows.

use cqrs_core::{
    Aggregate, Child, DomainEvent, Entity, Id, InMemoryStore, Repository, RequestContext, Result,
    Root, Specification, Store, TenantId, UnitOfWork, ValueObject, repository,
};
use cqrs_sqlx::{PgStore, SqliteStore};
use serde::{Deserialize, Serialize};

type AnyResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Address {
    street: String,
    #[mapper(flatten)]
    spot: Option<Spot>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct Spot {
    x: f64,
    y: f64,
}

#[derive(Debug, Clone, PartialEq, Child)]
struct Stop {
    city: String,
    minutes: Option<i32>,
    #[mapper(flatten)]
    address: Option<Address>,
}

#[derive(Debug, Clone, PartialEq, Child)]
struct Ticket {
    #[child(key)]
    number: String,
    holder: String,
}

impl Stop {
    fn at(city: &str) -> Self {
        Self {
            city: city.to_owned(),
            minutes: None,
            address: None,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
enum RoutePlanEvent {
    Planned,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "route_plan", event = RoutePlanEvent, tenant)]
struct RoutePlan {
    #[aggregate(id)]
    id: Id<RoutePlan>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    name: String,
    #[mapper(children(table = "route_stop", order = "seq"))]
    stops: Vec<Stop>,
    #[mapper(children(table = "route_ticket", parent = "plan"))]
    tickets: Vec<Ticket>,
}

#[repository]
trait RoutePlans: Repository<RoutePlan> {
    #[find(stops.any_child(Stop::fields().city.eq(city)), order_by(name.asc()))]
    async fn find_through(&mut self, city: &str) -> Result<Vec<RoutePlan>>;
}

async fn hold<U: UnitOfWork>(uow: &mut U, id: Id<RoutePlan>, city: &str) -> Result<()> {
    let mut plan: RoutePlan = uow.get(id).await?;
    plan.stops.push(Stop::at(city));
    for stop in &mut plan.stops {
        stop.minutes.get_or_insert(10);
    }
    uow.save(plan)
}

async fn children_are_kept(store: &impl Store) -> AnyResult {
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    let mut plan = RoutePlan {
        id: Id::new(),
        root: Root::new(),
        name: "a".to_owned(),
        stops: vec![Stop::at("Graz")],
        tickets: Vec::new(),
    };
    plan.stops[0].address = Some(Address {
        street: "Herrengasse".to_owned(),
        spot: Some(Spot { x: 15.4, y: 47.1 }),
    });
    plan.tickets.push(Ticket {
        number: "1".to_owned(),
        holder: "Ada".to_owned(),
    });
    let (id, expected) = (plan.id, plan.clone());
    store
        .execute(&ctx, async |uow| {
            uow.save(plan.clone())?;
            hold(uow, id, "Linz").await
        })
        .await?;

    let mut uow = store.unit_of_work(&ctx);
    let plan: RoutePlan = uow.get(id).await?;
    assert_eq!(plan.stops[0].address, expected.stops[0].address);
    assert_eq!(plan.stops[1].minutes, Some(10));
    assert_eq!(plan.tickets, expected.tickets);
    let found = uow.repository::<RoutePlan>().find_through("Linz").await?;
    assert_eq!(found.len(), 1);

    let (plan, stop) = (RoutePlan::fields(), Stop::fields());
    let long_in_graz = plan
        .stops
        .any_child(stop.city.eq("Graz") & stop.minutes.ge(30));
    let empty = !plan.stops.any_child(Specification::all());
    let mut plans = uow.repository::<RoutePlan>();
    assert_eq!(plans.count(long_in_graz).await?, 0);
    assert_eq!(plans.count(empty).await?, 0);
    let spot = stop.address.spot.x.gt(15.0);
    assert_eq!(plans.count(plan.stops.any_child(spot)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn children_are_kept_by_every_store() -> AnyResult {
    children_are_kept(&InMemoryStore::new()).await?;
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store.create_tables(&[RoutePlan::table()]).await?;
    store.verify(&[RoutePlan::table()]).await?;
    children_are_kept(&store).await
}

#[test]
fn the_page_shows_the_table_of_children() {
    let page = include_str!("mapping.md");
    let sql = PgStore::create_table_sql(RoutePlan::table());
    let start = sql
        .find("CREATE TABLE IF NOT EXISTS \"route_stop\"")
        .expect("the table");
    let (stops, _) = sql[start..].split_once(";\n").expect("its end");
    assert!(page.contains(&format!("```sql\n{stops};\n```")), "{stops}");
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
enum ParcelEvent {
    Measured,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "parcel", event = ParcelEvent)]
struct Parcel {
    #[aggregate(id)]
    id: Id<Parcel>,
    #[aggregate(root)]
    root: Root<ParcelEvent>,
    width: i64,
    height: i64,
    #[mapper(generated)]
    area: i64,
    #[mapper(read_only)]
    scans: i64,
}

async fn parcel_twice_as_wide(store: &impl Store) -> AnyResult<[Parcel; 2]> {
    let ctx = RequestContext::system();
    let id = Id::new();
    let parcel = Parcel {
        id,
        root: Root::new(),
        width: 2,
        height: 3,
        area: 0,
        scans: 7,
    };
    let mut uow = store.unit_of_work(&ctx);
    uow.save(parcel)?;
    let first: Parcel = uow.get(id).await?;
    let (width, area, scans) = (4, 12, 8);
    uow.save(Parcel {
        width,
        area,
        scans,
        ..first.clone()
    })?;
    Ok([first, uow.get(id).await?])
}

#[tokio::test]
async fn memory_computes_nothing() -> AnyResult {
    let store = InMemoryStore::new();
    let [first, second] = parcel_twice_as_wide(&store).await?;
    assert_eq!((first.area, first.scans), (0, 7));
    assert_eq!((second.width, second.area, second.scans), (4, 12, 7));

    // What is not written is no difference.
    let ctx = RequestContext::system();
    let id = second.id;
    let mut uow = store.unit_of_work(&ctx);
    uow.save(Parcel {
        root: Root::new(),
        ..second
    })?;
    assert_eq!(uow.commit().await?.events().len(), 1);
    let mut uow = store.unit_of_work(&ctx);
    let mut parcel: Parcel = uow.get(id).await?;
    (parcel.area, parcel.scans) = (1, 1);
    uow.save(parcel)?;
    assert_eq!(uow.commit().await?.events().len(), 0);
    Ok(())
}
