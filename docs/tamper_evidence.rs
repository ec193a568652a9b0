//! What the page on tamper evidence shows.

use cqrs_core::integrity::{Anchor, HashKey, HashKeys, LogCheck};
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Position, RequestContext, Root, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "contract")]
enum ContractEvent {
    Signed { cents: i64 },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "contract", event = ContractEvent, tenant, chained)]
struct Contract {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<ContractEvent>,
    cents: i64,
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<(), Box<dyn std::error::Error>> {
    let (secret_of_now, former_secret) = ([1; 32], [2; 32]);
    let former = HashKey::new(1, former_secret);
    let keys = HashKeys::new(HashKey::new(2, secret_of_now)).and_until(former, Position(40_000))?;
    let options = StoreOptions::default().verify_hashes().hash_keys(keys);
    let store = SqliteStore::connect_with("sqlite::memory:".parse()?, options).await?;
    store.migrate().await?;
    store.create_tables(&[Contract::table()]).await?;
    let context = RequestContext::tenant(TenantId::new("north")?);
    let sign = async |id, cents| {
        let mut root = Root::new();
        root.raise(ContractEvent::Signed { cents });
        let contract = Contract { id, root, cents };
        let signed = store.execute(&context, async |uow| uow.save(contract.clone()));
        signed.await.map(drop)
    };
    sign(17, 250).await?;

    let check = LogCheck::new().chained::<Contract>();
    let report = store.check_log(&RequestContext::system(), &check).await?;
    for found in report.breaks() {
        eprintln!("{found}");
    }
    assert!(report.is_intact());
    let anchor = report
        .anchor()
        .ok_or("a writer is under way: again later")?;
    let kept = anchor.to_string();

    sign(18, 70).await?;
    let check = LogCheck::new()
        .chained::<Contract>()
        .anchored(kept.parse::<Anchor>()?);
    let report = store.check_log(&RequestContext::system(), &check).await?;
    assert!(report.is_intact());
    assert_eq!((report.events(), report.streams()), (2, 2));
    Ok(())
}
