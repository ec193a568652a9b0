//! What the page on sealed fields shows.

use cqrs_core::sealed::{Forgotten, MasterKey, MasterKeys, Sealed, Sealing, Subject, SubjectKey};
use cqrs_core::testing::{given_stored, subject_key};
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Envelope, Id, Query, ReadModel, ReadModels, RequestContext,
    Result, Root, RowProjection, Store, TenantId, UnitOfWork,
};
use cqrs_sqlx::{Backend, Rewrapped, SqlStore, SqliteStore, StoreOptions};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "customer")]
enum CustomerEvent {
    Registered { email: Sealed<String> },
    Moved { email: Sealed<String> },
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "customer", event = CustomerEvent, tenant, history)]
struct Customer {
    #[aggregate(id)]
    id: Id<Customer>,
    #[aggregate(root)]
    root: Root<CustomerEvent>,
    email: Sealed<String>,
}

impl Customer {
    fn register(id: Id<Customer>, email: Sealed<String>) -> Self {
        let mut root = Root::new();
        root.raise(CustomerEvent::Registered {
            email: email.clone(),
        });
        Self { id, root, email }
    }

    fn change_email(&mut self, key: &SubjectKey, email: &String) -> Result<()> {
        if key.open(&self.email)? != *email {
            self.email = key.seal(email)?;
            let email = self.email.clone();
            self.root.raise(CustomerEvent::Moved { email });
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "customer_row", tenant)]
struct CustomerRow {
    #[read_model(key)]
    id: Id<Customer>,
    email: Sealed<String>,
}

struct CustomerRows;

impl RowProjection for CustomerRows {
    type Event = CustomerEvent;
    type Row = CustomerRow;
    const NAME: &'static str = "customer_row";

    fn key(&self, event: &Envelope<CustomerEvent>) -> Result<Option<Id<Customer>>> {
        Ok(Some(event.aggregate_id()?))
    }

    fn apply(&self, row: &mut Option<CustomerRow>, event: &Envelope<CustomerEvent>) -> Result<()> {
        let (CustomerEvent::Registered { email } | CustomerEvent::Moved { email }) =
            event.payload();
        *row = Some(CustomerRow {
            id: event.aggregate_id()?,
            email: email.clone(),
        });
        Ok(())
    }
}

async fn register(
    store: &(impl Store + Sealing),
    context: &RequestContext,
    email: String,
) -> Result<Id<Customer>> {
    let id = Id::new();
    let key = store.subject_keys(context).key(&Subject::new(id)?).await?;
    let email = key.seal(&email)?;
    store
        .execute(context, async |uow| {
            uow.save(Customer::register(id, email.clone()))
        })
        .await?;
    Ok(id)
}

async fn emails(store: &(impl Store + Sealing), context: &RequestContext) -> Result<Vec<String>> {
    let rows = store.read_models(context);
    let rows: Vec<CustomerRow> = rows.query(Query::all()).await?;
    let subjects = rows.iter().map(|row| row.email.subject());
    let ring = store.subject_keys(context).ring(subjects).await?;
    let emails = rows.iter().map(|row| {
        let email = ring.open(&row.email)?;
        Ok(email.unwrap_or_else(|Forgotten { .. }| "(forgotten)".to_owned()))
    });
    emails.collect()
}

async fn rewrap<B: Backend>(store: &SqlStore<B>) -> Result<Rewrapped> {
    let context = RequestContext::system();
    store
        .rewrap_subject_keys(&context, |done| println!("{} keys", done.keys))
        .await
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "version")]
enum Address {
    V1 { text: String },
    V2 { street: String, city: String },
}

#[test]
fn what_is_sealed_has_versions_of_its_own() -> Result<(), Box<dyn std::error::Error>> {
    let key = subject_key(None, &Subject::new(7)?);
    let (text, street, city) = ("5 Park Row", "Park Row", "Leeds");
    let first = key.seal(&Address::V1 {
        text: text.to_owned(),
    })?;
    assert!(matches!(key.open(&first)?, Address::V1 { text: found } if found == text));
    let (street, city) = (street.to_owned(), city.to_owned());
    let second = key.seal(&Address::V2 { street, city })?;
    assert!(matches!(key.open(&second)?, Address::V2 { city, .. } if city == "Leeds"));
    Ok(())
}

#[test]
fn a_command_that_seals_is_tested_without_a_store() -> Result<(), Box<dyn std::error::Error>> {
    let id = Id::new();
    let ada = Subject::new(id)?;
    let key = subject_key(None, &ada);
    let customer = Customer::register(id, key.seal(&"ada@example.org".to_owned())?);
    let moved = "ada@example.com".to_owned();
    given_stored(customer)
        .when(|customer| customer.change_email(&key, &moved))
        .then_events(|events| match events {
            [CustomerEvent::Moved { email }] => assert_eq!(key.open(email).unwrap(), moved),
            other => panic!("{other:?}"),
        });
    Ok(())
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<(), Box<dyn std::error::Error>> {
    let (secret_of_now, former_secret) = ([1; 32], [2; 32]);
    let keys =
        MasterKeys::new(MasterKey::new(2, secret_of_now)).and(MasterKey::new(1, former_secret))?;
    let options = StoreOptions::default().master_keys(keys);
    let store = SqliteStore::connect_with("sqlite::memory:".parse()?, options).await?;
    store.migrate().await?;
    let tables = [Customer::table(), CustomerRow::table()];
    store.create_tables(&tables).await?;
    store.verify(&tables).await?;
    store.inline_rows(CustomerRows)?;

    let context = RequestContext::tenant(TenantId::new("north")?);
    let id = register(&store, &context, "ada@example.org".to_owned()).await?;
    let key = store.subject_keys(&context).key(&Subject::new(id)?).await?;
    store
        .execute(&context, async |uow| {
            let mut customer: Customer = uow.get(id).await?;
            customer.change_email(&key, &"ada@example.com".to_owned())?;
            uow.save(customer)
        })
        .await?;
    assert_eq!(emails(&store, &context).await?, ["ada@example.com"]);

    let keys = store.subject_keys(&context);
    keys.forget(&Subject::new(id)?).await?;
    assert_eq!(emails(&store, &context).await?, ["(forgotten)"]);
    let refused = keys.key(&Subject::new(id)?).await.unwrap_err();
    assert!(refused.domain::<Forgotten>().is_some());
    assert_eq!(rewrap(&store).await?, Rewrapped::default());
    Ok(())
}
