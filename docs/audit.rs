//! What `audit.md` shows.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::{
    Aggregate, Clock, DomainEvent, Entity, Id, Maintain, ManualClock, ReadModel, ReadModels,
    RequestContext, Result, Root, Specification, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "contract")]
enum ContractEvent {
    Signed,
    Terminated { reason: String },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "contract", event = ContractEvent, tenant, soft_delete, audit)]
struct Contract {
    #[aggregate(id)]
    id: Id<Contract>,
    #[aggregate(root)]
    root: Root<ContractEvent>,
    terms: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "contract", tenant)]
struct ContractStamps {
    #[read_model(key)]
    id: Id<Contract>,
    created_by: Option<String>,
    updated_by: Option<String>,
    deleted_at: Option<DateTime<Utc>>,
    deleted_by: Option<String>,
}

impl Contract {
    fn sign(terms: &str) -> Self {
        let mut root = Root::new();
        root.raise(ContractEvent::Signed);
        let (id, terms) = (Id::new(), terms.to_owned());
        Self { id, root, terms }
    }

    fn terminate(&mut self, reason: &str) {
        let reason = reason.to_owned();
        self.root.raise(ContractEvent::Terminated { reason });
    }
}

async fn open(clock: Arc<dyn Clock>) -> Result<SqliteStore> {
    let connect = "sqlite::memory:".parse().expect("a URL of SQLite");
    let options = StoreOptions::default().clock(clock);
    let store = SqliteStore::connect_with(connect, options).await?;
    store.migrate().await?;
    store.create_tables(&[Contract::table()]).await?;
    store
        .verify(&[Contract::table(), ContractStamps::table()])
        .await?;
    Ok(store)
}

fn actors() -> Result<[RequestContext; 2]> {
    let north = TenantId::new("north")?;
    let kim = RequestContext::tenant(north.clone()).with_actor("kim@north");
    let lee = RequestContext::tenant(north).with_actor("lee@north");
    Ok([kim, lee])
}

#[tokio::test]
async fn the_page_on_audit_is_true() -> Result<()> {
    let signed_at: DateTime<Utc> = "2024-02-03T04:05:06Z".parse().expect("a time");
    let clock = Arc::new(ManualClock::new(signed_at));
    let store = open(clock.clone()).await?;
    let [kim, lee] = actors()?;

    let contract = Contract::sign("as agreed");
    let id = contract.id;
    store
        .execute(&kim, async |uow| uow.save(contract.clone()))
        .await?;

    clock.set(signed_at + TimeDelta::days(30));
    let remove = async |uow: &mut <SqliteStore as Store>::UnitOfWork| {
        let mut contract = uow.get::<Contract>(id).await?;
        contract.terminate("moved away");
        uow.remove(contract)
    };
    store.execute(&lee, remove).await?;

    let row = store.read_models(&kim).find::<ContractStamps>(id).await?;
    let row = row.expect("a soft-deleted row is there for read models");
    assert_eq!(row.created_by.as_deref(), Some("kim@north"));
    assert_eq!(row.deleted_by.as_deref(), Some("lee@north"));
    assert_eq!(row.deleted_at, Some(signed_at + TimeDelta::days(30)));
    assert_eq!(row.updated_by, row.deleted_by);

    let contracts = store.maintenance::<Contract>(&kim);
    contracts.restore(Specification::all()).await?;
    let mut uow = store.unit_of_work(&kim);
    let contract = uow.get::<Contract>(id).await?;
    let stamps = contract.root.stamps();
    assert_eq!(stamps.updated_by.as_deref(), Some("kim@north"));
    assert_eq!((stamps.deleted_at, &stamps.deleted_by), (None, &None));
    assert_eq!(contract.terms, "as agreed");
    Ok(())
}
