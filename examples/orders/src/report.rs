//! What the program prints.

use std::collections::BTreeMap;

use cqrs_core::{AsOf, EventHistory, Query, ReadModels, RequestContext, Store, UnitOfWork};

use crate::order::{Order, Status};
use crate::read_models::{CustomerRow, MonthRow, OrderRow};

/// How many customers with late orders are listed.
const CUSTOMERS: u64 = 5;

/// Prints the read models, and what happened to one late order.
pub(crate) async fn print<S: Store>(store: &S, context: &RequestContext) -> anyhow::Result<()> {
    let read_models = store.read_models(context);
    let orders = read_models.query::<OrderRow>(Query::all()).await?;
    let mut statuses: BTreeMap<Status, (usize, usize)> = BTreeMap::new();
    for order in &orders {
        let (all, late) = statuses.entry(order.status).or_default();
        *all += 1;
        *late += usize::from(order.is_late);
    }
    println!("{:<12} {:>7} {:>7}", "status", "orders", "flagged");
    for (status, (all, late)) in &statuses {
        println!("{status:<12} {all:>7} {late:>7}");
    }

    let by_month = Query::all().order_by(MonthRow::fields().month.asc());
    println!(
        "\n{:<12} {:>10} {:>7} {:>9}",
        "month", "deliveries", "late", "mean days"
    );
    for row in read_models.query::<MonthRow>(by_month).await? {
        let mean = row.days as f64 / row.deliveries as f64;
        let (month, deliveries, late) = (row.month, row.deliveries, row.late);
        println!("{month:<12} {deliveries:>10} {late:>7} {mean:>9.1}");
    }

    let fields = CustomerRow::fields();
    let late = Query::filter(fields.late.gt(0))
        .order_by(fields.late.desc())
        .order_by(fields.customer.asc())
        .limit(CUSTOMERS);
    println!(
        "\n{:<34} {:>6} {:>9} {:>6}",
        "customer", "orders", "delivered", "late"
    );
    for row in read_models.query::<CustomerRow>(late).await? {
        let (placed, delivered, late) = (row.placed, row.delivered, row.late);
        println!("{:<34} {placed:>6} {delivered:>9} {late:>6}", row.customer);
    }

    let mut late: Vec<&OrderRow> = orders.iter().filter(|order| order.is_late).collect();
    late.sort_by_key(|order| (order.placed_at, &order.id));
    let delivered = late.iter().find(|order| order.status == Status::Delivered);
    if let Some(order) = delivered.or(late.first()) {
        history(store, context, &order.id).await?;
    }
    Ok(())
}

/// What happened to an order, by whom, and what it was on the day it was promised for.
async fn history<S: Store>(store: &S, context: &RequestContext, id: &str) -> anyhow::Result<()> {
    let (events, promised, then) = store
        .read(context, async |uow| {
            let mut orders = uow.repository::<Order>();
            let events = orders.events(id.to_owned()).await?;
            let now = cqrs_core::Repository::get(&mut orders, id.to_owned()).await?;
            let promised = now.promised.unwrap_or_default();
            let then = orders
                .find_as_of(id.to_owned(), AsOf::Time(promised))
                .await?;
            Ok((events, promised, then))
        })
        .await?;
    println!("\norder {id}");
    for event in events {
        let at = event.occurred_at().format("%Y-%m-%d %H:%M");
        let actor = event.metadata().actor.as_deref().unwrap_or("-");
        println!("  {at}  {:<22} {actor}", event.event_type());
    }
    if let Some(then) = then {
        let day = promised.format("%Y-%m-%d");
        println!("  promised for {day}, on which it was {}\n", then.status);
    }
    Ok(())
}
