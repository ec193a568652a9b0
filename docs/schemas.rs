//! What the page on schemas shows.

use cqrs_core::schema::{Compatibility, ContentIds, EventSchema, EventSchemas, SchemaRegistry};
use cqrs_core::testing::SchemaFiles;
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, Position, Relay, RequestContext, Result, Root, Store,
    UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "basket")]
enum BasketEvent {
    Filled {
        article: String,
        pieces: u32,
        #[serde(default)]
        note: Option<String>,
    },
    Emptied,
}

fn schemas() -> Result<EventSchemas> {
    EventSchemas::new().with::<BasketEvent>()
}

#[test]
fn payloads_stay_readable() {
    let released = SchemaFiles::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/golden/basket-schemas"
    ));
    released.check(&schemas().unwrap(), Compatibility::Full);
}

#[test]
fn the_release_is_recorded() {
    let released = SchemaFiles::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/golden/basket-schemas"
    ));
    let unrecorded = released.check(&schemas().unwrap(), Compatibility::Full);
    assert!(unrecorded.is_empty(), "not recorded: {unrecorded:?}");
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "basket", event = BasketEvent)]
struct Basket {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<BasketEvent>,
    pieces: u32,
}

fn filled(id: i64) -> Basket {
    let mut root = Root::new();
    let (article, pieces, note) = ("nut".to_owned(), 3, None);
    root.raise(BasketEvent::Filled {
        article,
        pieces,
        note,
    });
    Basket { id, root, pieces }
}

/// In place of a client of the registry: what it has registered.
#[derive(Default)]
struct Client(std::sync::Mutex<Vec<String>>);

impl Client {
    async fn register(&self, subject: &str, schema: String) -> std::result::Result<u32, Error> {
        let mut known = self.0.lock().expect("no one panicked");
        known.push(format!("{subject} {schema}"));
        u32::try_from(known.len()).map_err(Error::other)
    }
}

struct Registry {
    client: Client,
}

impl SchemaRegistry for Registry {
    async fn register(&self, schema: &EventSchema) -> Result<String> {
        let subject = schema.event_type.name;
        let id = self
            .client
            .register(subject, schema.written.to_string())
            .await?;
        Ok(id.to_string())
    }
}

#[tokio::test]
async fn events_have_the_ids_of_their_schemas() -> Result<(), Box<dyn std::error::Error>> {
    let ids = schemas()?.register(&ContentIds).await?;
    let options = StoreOptions::default().schema_ids(ids.clone());
    let store = SqliteStore::connect_with("sqlite::memory:".parse()?, options).await?;
    store.migrate().await?;
    store.create_tables(&[Basket::table()]).await?;
    let context = RequestContext::system();
    let _ = store
        .execute(&context, async |uow| uow.save(filled(1)))
        .await?;
    let log = store.events(&context, Position::START, 10).await?;
    let id = schemas()?
        .iter()
        .next()
        .expect("there are two")
        .content_id();
    assert_eq!(log[0].schema_id(), Some(id.as_str()));

    let bus = cqrs_core::ConsoleEventBus::new(Vec::new());
    let relay = Relay::new("outgoing", bus)
        .upcasting::<BasketEvent>()
        .schema_ids(ids);
    store.projector().projection(relay).run_until_idle().await?;

    let registry = Registry {
        client: Client::default(),
    };
    let ids = schemas()?.register(&registry).await?;
    let store = cqrs_core::InMemoryStore::new().with_schema_ids(ids);
    let _ = store
        .execute(&context, async |uow| uow.save(filled(1)))
        .await?;
    assert_eq!(store.events()[0].schema_id(), Some("1"));
    Ok(())
}
