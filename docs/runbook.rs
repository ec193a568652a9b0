//! What the runbook shows.

use std::collections::BTreeMap;
use std::time::Duration;

use cqrs_core::{
    Entity, Envelope, Error, FailurePolicy, Parking, Position, RequestContext, Result,
    RowProjection, Store, Subscription, TenantId, UnitOfWork,
};
use cqrs_integration::database::TestDatabase;
use cqrs_sqlx::{Backend, DeadLetterStatus, PgStore, SqlStore, SqliteStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Order, OrderEvent, OrderList, OrderRow};

/// What an operator asks for: the path and the parameters of a request.
async fn admin<B: Backend>(
    store: &SqlStore<B>,
    operator: &str,
    action: &str,
    parameters: &BTreeMap<String, String>,
) -> Result<String> {
    let ctx = RequestContext::system().with_actor(operator);
    let operations = store.operations(&ctx)?;
    let get = |name: &str| {
        let value = parameters.get(name).map(String::as_str);
        value.ok_or_else(|| Error::other(format!("{name} is missing")))
    };
    let position = || get("position")?.parse().map(Position).map_err(Error::other);
    Ok(match action {
        "subscriptions" => format!("{:#?}", store.subscriptions().await?),
        "dead_letters" => {
            let letters = operations.dead_letters(get("name")?, Position::START, 100);
            format!("{:#?}", letters.await?)
        }
        "event" => {
            let event = operations.dead_letter_event(get("name")?, position()?);
            format!("{:#?}", event.await?)
        }
        "resume" => {
            operations.resume(get("name")?).await?;
            "resumed".to_owned()
        }
        "replay_all" => {
            let aggregates = operations.replay_all(get("name")?).await?;
            format!("{aggregates} aggregates are replayed")
        }
        "replay" => {
            let found = operations.replay(get("name")?, get("type")?, get("id")?);
            format!("found: {}", found.await?)
        }
        "discard_event" => {
            let found = operations.discard_event(get("name")?, position()?).await?;
            format!("found: {found}")
        }
        "records" => format!("{:#?}", operations.records(100).await?),
        other => return Err(Error::other(format!("there is no {other}"))),
    })
}

/// Cannot apply an order of Ada, until it is mended.
struct Picky {
    mended: bool,
}

impl RowProjection for Picky {
    type Event = OrderEvent;
    type Row = OrderRow;
    const NAME: &'static str = "order_list";

    fn key(&self, event: &Envelope<OrderEvent>) -> Result<Option<cqrs_core::Id<Order>>> {
        OrderList.key(event)
    }

    fn apply(&self, row: &mut Option<OrderRow>, event: &Envelope<OrderEvent>) -> Result<()> {
        match event.payload() {
            OrderEvent::Placed { customer } if customer == "Ada" && !self.mended => {
                Err(Error::other("not her again"))
            }
            _ => OrderList.apply(row, event),
        }
    }
}

fn list(mended: bool) -> Subscription<cqrs_sqlx::SqlTransaction<cqrs_sqlx::Sqlite>> {
    Subscription::named("order_list")
        .rows(Picky { mended })
        .on_failure(FailurePolicy::Park(Parking::at_most(1)))
}

/// One event is parked, the next one halts the subscription. While it is halted nothing is replayed.
#[tokio::test]
async fn what_is_halted_replays_nothing_until_it_is_resumed() -> Result<()> {
    let store = SqliteStore::connect("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let ctx = RequestContext::tenant(TenantId::new("north")?);
    for _ in 0..2 {
        store
            .execute(&ctx, async |uow| uow.save(Order::place("Ada")))
            .await?;
    }
    let projector = |mended| {
        store
            .projector()
            .subscribe(list(mended))
            .retry_delays([Duration::ZERO])
    };
    let halted = projector(false).run_until_idle().await;
    assert!(halted.is_err(), "{halted:?}");

    let ask = async |action: &str, parameters: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        admin(
            &store,
            "kim",
            action,
            &parameters.iter().map(owned).collect(),
        )
        .await
    };
    let name = ("name", "order_list");
    assert!(ask("subscriptions", &[]).await?.contains("Halted"));
    assert!(
        ask("dead_letters", &[name])
            .await?
            .contains("not her again")
    );
    let event = ask("event", &[name, ("position", "1")]).await?;
    assert!(event.contains("Ada"), "{event}");
    assert!(ask("drop everything", &[]).await.is_err());
    assert!(ask("resume", &[]).await.is_err());

    ask("replay_all", &[name]).await?;
    let stands = projector(true).run_until_idle().await;
    assert!(stands.is_err(), "{stands:?}");
    let operations = store.operations(&RequestContext::system())?;
    let letters = operations.dead_letters("order_list", Position::START, 10);
    let letters = letters.await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].status, DeadLetterStatus::Parked);

    ask("resume", &[name]).await?;
    projector(true).run_until_idle().await?;
    let left = operations.dead_letters("order_list", Position::START, 10);
    assert_eq!(left.await?, []);
    assert!(ask("records", &[]).await?.contains("kim"));
    assert!(
        ask("discard_event", &[name, ("position", "1")])
            .await?
            .contains("false")
    );
    let replayed = ask("replay", &[name, ("type", "order"), ("id", "x")]).await?;
    assert!(replayed.contains("false"));
    Ok(())
}

#[tokio::test]
async fn the_statements_of_the_page_are_answered() -> Result<(), Box<dyn std::error::Error>> {
    let database = TestDatabase::create().await;
    PgStore::connect(database.url()).await?.migrate().await?;
    let mut connection = PgConnection::connect(database.url()).await?;
    let (_, sql) = include_str!("runbook.md")
        .split_once("```sql\n")
        .expect("a block of SQL");
    let (sql, _) = sql.split_once("```").expect("its end");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    Ok(())
}
