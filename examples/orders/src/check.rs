//! Whether the store says what the file does.

use std::collections::BTreeMap;

use anyhow::ensure;
use cqrs_core::{Query, ReadModels, RequestContext, Store};

use crate::file::Record;
use crate::order::{Status, late_from};
use crate::read_models::{CustomerRow, MonthRow, OrderList, OrderRow};

/// Compares the read models with the file, and with the log.
pub(crate) async fn run<S: Store>(
    store: &S,
    context: &RequestContext,
    records: &[Record],
) -> anyhow::Result<()> {
    let read_models = store.read_models(context);
    let mut orders = read_models.query::<OrderRow>(Query::all()).await?;

    let found = count(orders.iter().map(|order| order.status));
    let expected = count(records.iter().map(|record| record.status));
    ensure!(
        found == expected,
        "by status: {found:?}, in the file {expected:?}"
    );

    let is_late = |record: &&Record| {
        let late_from = late_from(record.promised);
        record.closed_at().is_none_or(|closed| closed >= late_from)
    };
    let flagged = orders.iter().filter(|order| order.is_late).count();
    let late = records.iter().filter(is_late).count();
    ensure!(
        flagged == late,
        "flagged: {flagged}, late in the file: {late}"
    );

    let customers = read_models.query::<CustomerRow>(Query::all()).await?;
    let placed: i64 = customers.iter().map(|row| row.placed).sum();
    let months = read_models.query::<MonthRow>(Query::all()).await?;
    let deliveries: i64 = months.iter().map(|row| row.deliveries).sum();
    let delivered = records
        .iter()
        .filter(|record| record.is_delivered())
        .count();
    ensure!(
        (placed, deliveries) == (i64::try_from(records.len())?, i64::try_from(delivered)?),
        "{placed} orders of customers, {deliveries} deliveries"
    );

    // A replay of the log comes to the same list.
    let mut replayed = store.live(context).rows(&OrderList).await?;
    orders.sort_by(|a, b| a.id.cmp(&b.id));
    replayed.sort_by(|a, b| a.id.cmp(&b.id));
    ensure!(orders == replayed, "a replay comes to another list");

    let statuses = expected.len();
    println!(
        "checked   {statuses} statuses, {late} late orders, {deliveries} deliveries: as in the file"
    );
    Ok(())
}

fn count(statuses: impl Iterator<Item = Status>) -> BTreeMap<Status, usize> {
    let mut counts = BTreeMap::new();
    for status in statuses {
        *counts.entry(status).or_default() += 1;
    }
    counts
}
