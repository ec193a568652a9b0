//! What `maintenance.md` shows.

use cqrs_core::Maintain;
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Id, Query, RequestContext, Result, Root, RowProjection, Store,
    UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_sqlx::{PgStore, SqliteStore};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Order, OrderEvent, OrderList, OrderRow};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "note")]
enum NoteEvent {
    Written,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "note", event = NoteEvent, tenant, soft_delete)]
struct Note {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<NoteEvent>,
    text: String,
}

impl Note {
    fn write(id: i64, text: &str) -> Self {
        let mut root = Root::new();
        root.raise(NoteEvent::Written);
        let text = text.to_owned();
        Self { id, root, text }
    }
}

async fn open() -> Result<SqliteStore> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table(), Note::table()])
        .await?;
    Ok(store)
}

#[tokio::test]
async fn the_page_on_maintenance_is_true() -> Result<(), Box<dyn std::error::Error>> {
    let store = open().await?;
    let _projector = store.projector().rows(OrderList).start().await?;
    let ctx = RequestContext::tenant("north".parse()?);
    for customer in ["Ada", "Ben"] {
        let order = Order::place(customer);
        let placed = store.execute(&ctx, async |uow| uow.save(order.clone()));
        placed.await?;
    }

    let orders = store.maintenance::<Order>(&ctx);
    let paid = Order::fields().paid;
    let done = orders.update(paid.eq(false), [paid.set(true)]).await?;
    assert_eq!((done.items(), done.commits()), (2, 1));

    let new: Vec<Order> = (0..1_000).map(|_| Order::place("Ada")).collect();
    let done = store.maintenance::<Order>(&ctx).insert(new).await?;
    store.wait_for(&done.receipt(), OrderList::NAME).await?;
    assert_eq!(done.items(), 1_000);

    let orders = store.maintenance::<Order>(&ctx).raising(OrderEvent::Paid);
    let done = orders.update(paid.eq(false), [paid.set(true)]).await?;
    store.wait_for(&done.receipt(), OrderList::NAME).await?;
    assert_eq!(done.items(), 1_000);

    let mut export = store.maintenance::<Order>(&ctx).export(Query::all());
    let mut customers = Vec::new();
    while let Some(order) = export.next().await? {
        customers.push(order.customer);
    }
    assert_eq!(customers.len(), 1_002);

    let lines = ["Cid", "Dee"];
    let source = lines.into_iter().map(Order::place);
    let done = store
        .maintenance::<Order>(&ctx)
        .batch_size(500)
        .import(source, |progress| {
            println!("{} ({:.0}/s)", progress.rows(), progress.rows_per_second());
        })
        .await?;
    assert_eq!((done.items(), done.commits()), (2, 1));
    Ok(())
}

#[tokio::test]
async fn rows_that_were_there_before_get_an_event() -> Result<(), Box<dyn std::error::Error>> {
    let store = open().await?;
    let ctx = RequestContext::tenant("north".parse()?);
    let mut uow = store.unit_of_work(&ctx);
    sqlx::query("INSERT INTO note (id, tenant_id, version, text) VALUES (1, 'north', 0, 'old')")
        .execute(uow.connection().await?)
        .await?;
    let _ = uow.commit().await?;
    #[rustfmt::skip]
    let done = store
        .maintenance::<Note>(&ctx)
        .backfill(|_| NoteEvent::Written, |progress| {
            println!("{} rows", progress.rows());
        })
        .await?;
    assert_eq!((done.items(), done.commits()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_can_be_seen() -> Result<(), Box<dyn std::error::Error>> {
    let store = open().await?;
    let ctx = RequestContext::tenant("north".parse()?);
    let notes = store.maintenance::<Note>(&ctx);
    let written = ["keep", "drop", "untouched"];
    let written = written
        .iter()
        .zip(1..)
        .map(|(text, id)| Note::write(id, text));
    notes.insert(written.collect::<Vec<_>>()).await?;
    notes.remove(Note::fields().id.le(2)).await?;

    let a_year_ago = chrono::Utc::now() + chrono::TimeDelta::days(1);
    let notes = store.maintenance::<Note>(&ctx).include_deleted();
    let deleted_at = Note::fields().deleted_at;
    assert_eq!(notes.count(deleted_at.is_not_null()).await?, 2);
    notes.restore(Note::fields().text.eq("keep")).await?;
    notes.purge(deleted_at.lt(a_year_ago)).await?;
    let left = notes.query(Query::all()).await?;
    let left: Vec<&str> = left.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(left, ["keep", "untouched"]);
    Ok(())
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "invoice")]
enum InvoiceEvent {
    Imported { number: i32 },
    Corrected,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "invoice", event = InvoiceEvent, tenant = "org", audit)]
struct Invoice {
    #[aggregate(id)]
    id: Id<Invoice>,
    #[aggregate(root)]
    root: Root<InvoiceEvent>,
    number: i32,
    customer: String,
    total_cents: i64,
}

/// The blocks of SQL of the section on tables that were there before.
fn adoption() -> Vec<&'static str> {
    let page = include_str!("maintenance.md");
    let (_, section) = page
        .split_once("## Tables that were there before")
        .expect("the section");
    let blocks = section.split("```sql\n").skip(1);
    blocks
        .filter_map(|block| block.split_once("```"))
        .map(|(block, _)| block)
        .collect()
}

#[tokio::test]
async fn a_table_of_before_is_adopted() -> Result<(), Box<dyn std::error::Error>> {
    let database = TestDatabase::create().await;
    let store = PgStore::connect(database.url()).await?;
    store.migrate().await?;
    let mut connection = PgConnection::connect(database.url()).await?;
    let [before, adopt, ..] = adoption()[..] else {
        panic!("the page has the table, and how it is adopted");
    };
    let row = "INSERT INTO invoice VALUES ('north', 7, 'Ada', 12.34)";
    for sql in [before, row, adopt] {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await?;
    }
    store.verify(&[Invoice::table()]).await?;
    let done = store
        .maintenance::<Invoice>(&RequestContext::system())
        .backfill(
            |invoice| InvoiceEvent::Imported {
                number: invoice.number,
            },
            |_| {},
        )
        .await?;
    assert_eq!(done.items(), 1);
    let ctx = RequestContext::tenant("north".parse()?);
    let receipt = store
        .execute(&ctx, async |uow| {
            let mut found = uow.query(Query::<Invoice>::all()).await?;
            let mut invoice = found.pop().expect("it is adopted");
            assert_eq!(
                (invoice.customer.as_str(), invoice.total_cents),
                ("Ada", 1234)
            );
            invoice.total_cents += 1;
            invoice.root.raise(InvoiceEvent::Corrected);
            uow.save(invoice)
        })
        .await?;
    assert_eq!(receipt.events().len(), 1);
    // What an old writer does without the stamps is not seen, and can be backfilled.
    let late =
        "INSERT INTO invoice (org, number, customer, total_cents) VALUES ('north', 8, 'Ben', 1)";
    sqlx::query(late).execute(&mut connection).await?;
    let invoices = store.maintenance::<Invoice>(&ctx);
    let done = invoices
        .backfill(|_| InvoiceEvent::Corrected, |_| {})
        .await?;
    assert_eq!(done.items(), 1);
    Ok(())
}
