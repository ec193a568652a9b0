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
    let months = read_models.query::<MonthRow>(by_month).await?;
    println!(
        "\n{:<12} {:>10} {:>9} {:>6} {:>7} {:>14} {:>9}",
        "month", "deliveries", "mean days", "late", "% late", "mean days late", "most late"
    );
    for row in &months {
        print_month(row);
    }

    let fields = CustomerRow::fields();
    let late = Query::filter(fields.flagged.gt(0))
        .order_by(fields.days_late.desc())
        .order_by(fields.customer.asc())
        .limit(CUSTOMERS);
    println!(
        "\n{:<34} {:>6} {:>9} {:>9} {:>7} {:>9}",
        "customer", "orders", "delivered", "cancelled", "flagged", "days late"
    );
    for row in read_models.query::<CustomerRow>(late).await? {
        let (placed, delivered, cancelled) = (row.placed, row.delivered, row.cancelled);
        println!(
            "{:<34} {placed:>6} {delivered:>9} {cancelled:>9} {:>7} {:>9}",
            row.customer, row.flagged, row.days_late
        );
    }

    let mut late: Vec<&OrderRow> = orders.iter().filter(|order| order.is_late).collect();
    late.sort_by_key(|order| (order.placed_at, &order.id));
    let delivered = late.iter().find(|order| order.status == Status::Delivered);
    if let Some(order) = delivered.or(late.first()) {
        history(store, context, &order.id).await?;
    }
    Ok(())
}

fn print_month(row: &MonthRow) {
    let deliveries = row.deliveries as f64;
    let mean = row.minutes as f64 / (24 * 60) as f64 / deliveries;
    let percent = 100.0 * row.late as f64 / deliveries;
    let mean_late = match row.late {
        0 => "-".to_owned(),
        late => format!("{:.1}", row.days_late as f64 / late as f64),
    };
    println!(
        "{:<12} {:>10} {mean:>9.1} {:>6} {percent:>7.1} {mean_late:>14} {:>9}",
        row.month, row.deliveries, row.late, row.most_days_late
    );
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
