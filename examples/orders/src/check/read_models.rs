//! The read models, row by row.

use std::collections::BTreeMap;

use anyhow::ensure;
use cqrs_core::{Query, ReadModel, ReadModels, RequestContext, RowProjection, Store};

use super::expected::Expected;
use super::{Named, compare, grouped, named};
use crate::order::Status;
use crate::read_models::{
    CustomerRow, CustomerSummary, DeliveryMonths, MonthRow, OrderList, OrderRow,
};

async fn rows<S: Store, R: ReadModel>(
    store: &S,
    context: &RequestContext,
) -> cqrs_core::Result<Vec<R>> {
    store.read_models(context).query(Query::all()).await
}

/// As many orders of each status as the file has.
pub(super) async fn statuses<S: Store>(
    store: &S,
    context: &RequestContext,
    orders: &[Expected],
) -> anyhow::Result<()> {
    let in_file = grouped(
        orders,
        |order| Some(order.status.clone()),
        |count: &mut u64, _| *count += 1,
    );
    for (status, expected) in in_file {
        let status: Status = status.parse().map_err(anyhow::Error::msg)?;
        let with_status = OrderRow::fields().status.eq(status);
        let found = store.read_models(context).count(with_status).await?;
        ensure!(
            found == expected,
            "order list: {found} orders are {status}, {expected} by the file"
        );
    }
    Ok(())
}

/// Each order, with its recorded times.
pub(super) async fn orders<S: Store>(
    store: &S,
    context: &RequestContext,
    orders: &[Expected],
) -> anyhow::Result<()> {
    let expected = orders.iter().map(|order| {
        let last = order.events.last().map(|event| event.known_at);
        let values = vec![
            named("customer", &order.customer),
            ("status", order.status.clone()),
            named("placed_at", Some(order.purchased)),
            named("promised", Some(order.promised)),
            named("approved_at", order.approved),
            named("shipped_at", order.shipped),
            named("delivered_at", order.delivered),
            named("is_late", order.is_flagged()),
            named("changed_at", last),
        ];
        (order.order.clone(), values)
    });
    let found = rows::<S, OrderRow>(store, context).await?;
    let found = found.iter().map(|row| {
        let values = vec![
            named("customer", &row.customer),
            ("status", row.status.to_string()),
            named("placed_at", Some(row.placed_at)),
            named("promised", Some(row.promised)),
            named("approved_at", row.approved_at),
            named("shipped_at", row.shipped_at),
            named("delivered_at", row.delivered_at),
            named("is_late", row.is_late),
            named("changed_at", Some(row.changed_at)),
        ];
        (row.id.clone(), values)
    });
    compare("order list", &expected.collect(), &found.collect())
}

/// What each customer has ordered, and how late it arrived.
pub(super) async fn customers<S: Store>(
    store: &S,
    context: &RequestContext,
    orders: &[Expected],
) -> anyhow::Result<()> {
    const NAMES: [&str; 5] = ["placed", "delivered", "cancelled", "flagged", "days_late"];
    let sums = grouped(
        orders,
        |order| Some(order.customer.clone()),
        |[placed, delivered, cancelled, flagged, days_late]: &mut [i64; 5], order| {
            *placed += 1;
            *delivered += i64::from(order.has("order.delivered"));
            *cancelled += i64::from(order.status == "canceled");
            *flagged += i64::from(order.is_flagged());
            *days_late += order.days_late();
        },
    );
    let found = rows::<S, CustomerRow>(store, context).await?;
    let found = found.into_iter().map(|row| {
        let sums = [
            row.placed,
            row.delivered,
            row.cancelled,
            row.flagged,
            row.days_late,
        ];
        (row.customer, sums)
    });
    compare_sums("customer summary", NAMES, sums, found)
}

/// The deliveries of each month, and their delay.
pub(super) async fn months<S: Store>(
    store: &S,
    context: &RequestContext,
    orders: &[Expected],
) -> anyhow::Result<()> {
    const NAMES: [&str; 5] = [
        "deliveries",
        "minutes",
        "late",
        "days_late",
        "most_days_late",
    ];
    let sums = grouped(
        orders,
        |order| order.arrived_at().map(|at| at.format("%Y-%m").to_string()),
        |[deliveries, minutes, late, days_late, most]: &mut [i64; 5], order| {
            let took = order.arrived_at().map(|at| at - order.purchased);
            *deliveries += 1;
            *minutes += took.map_or(0, |took| took.num_minutes());
            *late += i64::from(order.days_late() > 0);
            *days_late += order.days_late();
            *most = order.days_late().max(*most);
        },
    );
    let found = rows::<S, MonthRow>(store, context).await?;
    let found = found.into_iter().map(|row| {
        let sums = [
            row.deliveries,
            row.minutes,
            row.late,
            row.days_late,
            row.most_days_late,
        ];
        (row.month, sums)
    });
    compare_sums("delivery months", NAMES, sums, found)
}

/// A replay of the log comes to the same rows.
pub(super) async fn replayed<S: Store>(store: &S, context: &RequestContext) -> anyhow::Result<()> {
    replay(store, context, OrderList).await?;
    replay(store, context, CustomerSummary).await?;
    replay(store, context, DeliveryMonths).await
}

/// Compares sums by their key, each under its name.
fn compare_sums(
    what: &str,
    names: [&'static str; 5],
    expected: BTreeMap<String, [i64; 5]>,
    found: impl Iterator<Item = (String, [i64; 5])>,
) -> anyhow::Result<()> {
    let with_names = |(key, sums): (String, [i64; 5])| {
        let each = names.into_iter().zip(sums);
        let each = each.map(|(name, sum)| named(name, sum));
        (key, each.collect::<Vec<Named>>())
    };
    let expected = expected.into_iter().map(with_names).collect();
    compare(what, &expected, &found.map(with_names).collect())
}

async fn replay<S: Store, P: RowProjection>(
    store: &S,
    context: &RequestContext,
    projection: P,
) -> anyhow::Result<()>
where
    P::Row: std::fmt::Debug,
{
    let in_order = |rows: Vec<P::Row>| {
        let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        rows
    };
    let kept = in_order(rows::<S, P::Row>(store, context).await?);
    let replayed = in_order(store.live(context).rows(&projection).await?);
    let differs = kept
        .iter()
        .zip(&replayed)
        .find(|(kept, replayed)| kept != replayed);
    if let Some((kept, replayed)) = differs {
        anyhow::bail!("{}: {kept}, but {replayed} by a replay", P::NAME);
    }
    ensure!(
        kept.len() == replayed.len(),
        "{}: a replay has other rows",
        P::NAME
    );
    Ok(())
}
