//! Sealed fields on databases: what of who is forgotten is left, and what it costs.

mod domain;
mod kept_keys;
mod plain_text;
mod races;

use cqrs_core::conformance::fixtures::{Person, PersonEntry};
use cqrs_core::integrity::LogCheck;
use cqrs_core::sealed::{Forgotten, Sealed, Sealing, Subject, SubjectKeys};
use cqrs_core::{Entity, Position, RequestContext, Store, UnitOfWork};
use cqrs_integration::database::TestDatabase;
use cqrs_integration::each::{Fresh, Kind, on_each};
use cqrs_integration::stores;
use cqrs_integration::wire::{Counts, WireProxy};
use cqrs_sqlx::{SqlStore, StoreOptions};

use self::domain::Household;

on_each!(forgetting_keeps_chains_intact);

const NAME: &str = "Augusta Ada Lovelace";
const FORMER: &str = "Augusta Ada Gordon-Byron";

fn north() -> RequestContext {
    stores::tenant("north").with_actor("ann")
}

fn subject(id: &str) -> Subject {
    Subject::new(id).unwrap()
}

async fn with<K: Kind>(options: StoreOptions) -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with(options).await;
    let tables = [Person::table(), PersonEntry::table(), Household::table()];
    store.create_tables(&tables).await.unwrap();
    store.verify(&tables).await.unwrap();
    (fresh, store)
}

async fn sealed(keys: &SubjectKeys, id: &str, name: &str) -> cqrs_core::Result<Sealed<String>> {
    Ok(keys.key(&subject(id)).await?.seal(&name.to_owned())?)
}

async fn opened(
    keys: &SubjectKeys,
    value: &Sealed<String>,
) -> cqrs_core::Result<Result<String, Forgotten>> {
    Ok(keys.ring([value.subject()]).await?.open(value)?)
}

/// Destroys the key of a subject, which has one.
async fn forget(keys: &SubjectKeys, id: &str) {
    assert!(keys.forget(&subject(id)).await.unwrap(), "{id} has no key");
}

async fn registered<K: Kind>(store: &SqlStore<K>, id: &str) -> cqrs_core::Result<Sealed<String>> {
    let key = store.subject_keys(&north()).key(&subject(id)).await?;
    let name = key.seal(&FORMER.to_owned())?;
    let person = Person::register(id, name, key.seal(&1815)?);
    let mut uow = store.unit_of_work(&north());
    uow.save(person)?;
    uow.commit().await?;
    let mut uow = store.unit_of_work(&north());
    let mut person: Person = uow.get(id.to_owned()).await?;
    let name = key.seal(&NAME.to_owned())?;
    person.rename(name.clone());
    uow.save(person)?;
    uow.commit().await?;
    Ok(name)
}

async fn forgetting_keeps_chains_intact<K: Kind>() {
    let (fresh, store) = with::<K>(StoreOptions::default().verify_hashes()).await;
    let keys = store.subject_keys(&north());
    for id in 1..=3 {
        let mut household = Household::new(id);
        for subject in ["ada", "eve"] {
            household.join(sealed(&keys, subject, NAME).await.unwrap());
        }
        let mut uow = store.unit_of_work(&north());
        uow.save(household).unwrap();
        uow.commit().await.unwrap();
    }
    let check = async |check: LogCheck| {
        let check = check.chained::<Household>();
        let system = RequestContext::system();
        store.check_log(&system, &check).await.unwrap()
    };
    let before = check(LogCheck::new()).await;
    assert!(before.is_intact(), "{before:?}");
    forget(&keys, "ada").await;
    let after = check(LogCheck::new().anchored(before.anchor().unwrap())).await;
    assert!(after.is_intact(), "{after:?}");
    assert_eq!((after.events(), after.streams()), (6, 3));
    // Cipher text is covered.
    let moved = K::either(
        "UPDATE cqrs_event SET payload = replace(payload::text, ':ada', ':eve')::jsonb
         WHERE position = 1",
        "UPDATE cqrs_event SET payload = replace(payload, ':ada', ':eve') WHERE position = 1",
    );
    fresh.run(moved).await;
    let report = check(LogCheck::new()).await;
    assert_eq!(report.first().unwrap().position, Some(Position(1)));
}

#[tokio::test]
async fn forgetting_and_sealing_cost_few_statements() {
    let database = TestDatabase::create().await;
    stores::postgres(database.url()).await.close();
    let proxy = WireProxy::start(database.url()).await;
    let store = stores::postgres_with(proxy.url(), StoreOptions::default()).await;
    let keys = store.subject_keys(&north());
    let ada = subject("ada");
    let cost = |before: &Counts| {
        let sent = proxy.statements_since(before);
        (proxy.counts().since(before).statements, sent)
    };
    for expected in [2, 1] {
        let before = proxy.counts();
        drop(keys.key(&ada).await.unwrap());
        let (found, sent) = cost(&before);
        assert_eq!(found, expected, "{sent:#?}");
    }
    let many: Vec<_> = (0..500)
        .map(|number| subject(&number.to_string()))
        .collect();
    let before = proxy.counts();
    drop(keys.ring(&many).await.unwrap());
    drop(keys.ring([]).await.unwrap());
    let (found, sent) = cost(&before);
    assert_eq!(found, 1, "{sent:#?}");
    let before = proxy.counts();
    forget(&keys, "ada").await;
    let (found, sent) = cost(&before);
    assert_eq!(found, 1, "{sent:#?}");
}
