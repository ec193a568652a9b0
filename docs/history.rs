//! What `history.md` shows.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::{
    Aggregate, AsOf, Clock, DomainEvent, Entity, EventHistory, Id, Maintain, ManualClock,
    PageRequest, RequestContext, Result, RevisionKind, Root, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "tariff")]
enum TariffEvent {
    Published,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "tariff", event = TariffEvent, tenant, history)]
struct Tariff {
    #[aggregate(id)]
    id: Id<Tariff>,
    #[aggregate(root)]
    root: Root<TariffEvent>,
    name: String,
    cents: i64,
}

impl Tariff {
    fn publish(name: &str, cents: i64) -> Self {
        let mut root = Root::new();
        root.raise(TariffEvent::Published);
        let (id, name) = (Id::new(), name.to_owned());
        Self {
            id,
            root,
            name,
            cents,
        }
    }
}

async fn print<U: UnitOfWork>(uow: &mut U, id: Id<Tariff>) -> Result<()> {
    let mut tariffs = uow.repository::<Tariff>();
    let page = tariffs.revisions(id, PageRequest::first(20)).await?;
    for revision in &page.items {
        let (when, who) = (revision.changed_at(), revision.actor().unwrap_or("nobody"));
        println!("{when} {who} {}", revision.kind());
        for change in revision.changes() {
            println!("  {}: {:?} -> {:?}", change.path, change.from, change.to);
        }
    }
    Ok(())
}

async fn open(clock: Arc<dyn Clock>) -> Result<SqliteStore> {
    let connect = "sqlite::memory:".parse().expect("a URL of SQLite");
    let options = StoreOptions::default().clock(clock);
    let store = SqliteStore::connect_with(connect, options).await?;
    store.migrate().await?;
    store.create_tables(&[Tariff::table()]).await?;
    Ok(store)
}

#[tokio::test]
async fn the_page_on_the_history_is_true() -> Result<()> {
    let january: DateTime<Utc> = "2024-01-01T00:00:00Z".parse().expect("a time");
    let clock = Arc::new(ManualClock::new(january));
    let store = open(clock.clone()).await?;
    let north = RequestContext::tenant(TenantId::new("north")?);
    let (kim, lee) = (
        north.clone().with_actor("kim@north"),
        north.with_actor("lee@north"),
    );
    let tariff = Tariff::publish("night", 900);
    let id = tariff.id;
    let publish = store.execute(&kim, async |uow| uow.save(tariff.clone()));
    publish.await?;
    clock.set(january + TimeDelta::days(31));
    let raise = store.execute(&lee, async |uow| {
        let mut tariff = uow.get::<Tariff>(id).await?;
        tariff.cents = 950;
        uow.save(tariff)
    });
    raise.await?;

    let mut uow = store.unit_of_work(&kim);
    print(&mut uow, id).await?;
    let mut tariffs = uow.repository::<Tariff>();
    let page = tariffs.revisions(id, PageRequest::first(20)).await?;
    let last = &page.items[0];
    assert_eq!((last.version(), last.kind()), (2, RevisionKind::Changed));
    assert_eq!(last.actor(), Some("lee@north"));
    assert_eq!(last.changes()[0].path, "cents");
    assert_eq!(last.changes().len(), 1);

    let in_january = AsOf::Time(january + TimeDelta::days(15));
    let then = tariffs.find_as_of(id, in_january).await?;
    assert_eq!(then.map(|tariff| tariff.cents), Some(900));
    let first = tariffs.find_as_of(id, AsOf::Version(1)).await?;
    assert_eq!(first.map(|tariff| tariff.name).as_deref(), Some("night"));
    assert_eq!(page.items[1].aggregate()?.cents, 900);

    let two_years_ago = clock.now() - TimeDelta::days(730);
    let tariffs = store.maintenance::<Tariff>(&kim);
    let removed = tariffs.remove_history(two_years_ago).await?;
    assert_eq!(removed.items(), 0);
    Ok(())
}
