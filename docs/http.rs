//! What the page on HTTP shows.

use std::time::Duration;

use cqrs_core::{
    Entity, Error, Id, IdempotencyKey, RequestContext, Result, RowProjection, Store, TenantId,
    TraceContext, UnitOfWork,
};
use cqrs_sqlx::{SqliteStore, StoreOptions};

use super::guide_snippets::http_status;
use super::{Order, OrderList, OrderRow, pay};

/// The context of a request: `header` finds a header by its name, `user` is whom the token is of.
fn context(header: impl Fn(&str) -> Option<String>, user: &str) -> Result<RequestContext> {
    let tenant = header("x-tenant").unwrap_or_default();
    let mut ctx = RequestContext::tenant(TenantId::new(tenant)?).with_actor(user);
    if let Some(id) = header("x-correlation-id").and_then(|id| id.parse().ok()) {
        ctx = ctx.with_correlation_id(id);
    }
    if let Some(traceparent) = header("traceparent") {
        let tracestate = header("tracestate");
        ctx = ctx.with_trace(TraceContext {
            traceparent,
            tracestate,
        });
    }
    Ok(ctx)
}

/// `POST /orders` with an `Idempotency-Key`: the status, and the id of the order or why there is
/// none.
async fn post_order(
    store: &SqliteStore,
    ctx: &RequestContext,
    key: &str,
    customer: &str,
) -> (u16, String) {
    let Ok(key) = IdempotencyKey::new(key).and_then(|key| key.for_request(&customer)) else {
        return (400, "Idempotency-Key: 1 to 255 bytes".to_owned());
    };
    let placed = store
        .execute_once(ctx, &key, async |uow| {
            let order = Order::place(customer);
            let id = order.id;
            uow.save(order)?;
            Ok(id)
        })
        .await;
    let receipt = match placed {
        Ok(receipt) => receipt,
        Err(error) => return refused(&error),
    };
    let id = receipt.output().to_string();
    match store.wait_for(&receipt, OrderList::NAME).await {
        Ok(()) => (201, id),
        Err(error) => {
            eprintln!("order {id} is placed, and not in the list yet: {error}");
            (202, id)
        }
    }
}

/// The answer to an error: what a client may know of it.
fn refused(error: &Error) -> (u16, String) {
    match http_status(error) {
        status @ 500.. => {
            eprintln!("{status}: {error}");
            (status, "try again later".to_owned())
        }
        // Their messages name tables and columns.
        status if matches!(error, Error::Mapping(_) | Error::Store(_)) => {
            eprintln!("{status}: {error}");
            (status, "the request cannot be carried out".to_owned())
        }
        status => (status, error.to_string()),
    }
}

/// `POST /orders/{id}/pay`, which goes on when the client does not wait.
async fn post_pay(store: &SqliteStore, ctx: &RequestContext, id: Id<Order>) -> (u16, String) {
    let (store, ctx) = (store.clone(), ctx.clone());
    let paid =
        tokio::spawn(async move { store.execute(&ctx, async |uow| pay(uow, id).await).await });
    match paid.await {
        Ok(Ok(_)) => (200, String::new()),
        Ok(Err(error)) => refused(&error),
        Err(panicked) => refused(&Error::other(panicked)),
    }
}

async fn open(url: &str) -> Result<SqliteStore, Box<dyn std::error::Error>> {
    let options = StoreOptions::default()
        .acquire_timeout(Duration::from_secs(2))
        .wait_timeout(Duration::from_secs(2));
    Ok(SqliteStore::connect_with(url.parse()?, options).await?)
}

#[tokio::test]
async fn what_the_page_shows_works() -> Result<(), Box<dyn std::error::Error>> {
    let store = open("sqlite::memory:").await?;
    store.migrate().await?;
    store
        .create_tables(&[Order::table(), OrderRow::table()])
        .await?;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let header = |name: &str| match name {
        "x-tenant" => Some("north".to_owned()),
        "x-correlation-id" => Some("0190e1f0-0000-7000-8000-000000000001".to_owned()),
        "traceparent" => Some(trace.to_owned()),
        _ => None,
    };
    let ctx = context(header, "kim")?;
    assert_eq!(ctx.actor(), Some("kim"));
    let metadata = ctx.metadata();
    assert_eq!(metadata.correlation_id.as_u128() & 0xff, 1);
    let carried = metadata.trace.as_ref().map(|it| it.traceparent.as_str());
    assert_eq!(carried, Some(trace));
    let nobody = context(|_| None, "kim").map_err(|error| http_status(&error));
    assert_eq!(nobody.err(), Some(400));

    // Nobody runs the projection yet.
    let (status, id) = post_order(&store, &ctx, "k1", "Ada").await;
    assert_eq!(status, 202);
    let projector = store.projector().rows(OrderList).start().await?;
    assert_eq!(
        post_order(&store, &ctx, "k1", "Ada").await,
        (201, id.clone()),
        "the order of before"
    );
    assert_eq!(post_order(&store, &ctx, "k1", "Ben").await.0, 422);
    assert_eq!(post_order(&store, &ctx, "", "Ada").await.0, 400);
    assert_eq!(post_pay(&store, &ctx, id.parse()?).await.0, 200);
    assert_eq!(post_pay(&store, &ctx, Id::new()).await.0, 404);
    projector.stop(Duration::from_secs(1)).await;
    Ok(())
}
