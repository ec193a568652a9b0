//! Whether the store says what the file does.
//!
//! What is expected is computed from the text of the file alone, by other code than the import, the
//! aggregate and the read models: what these get wrong differs from it. The first difference ends the
//! check.

mod expected;
mod read_models;
mod streams;

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{bail, ensure};
use cqrs_core::{RequestContext, Store};

use self::expected::Expected;

/// Compares read models and log with the file.
pub(crate) async fn run<S: Store>(
    store: &S,
    context: &RequestContext,
    text: &[u8],
) -> anyhow::Result<()> {
    let orders = expected::orders(text)?;
    read_models::statuses(store, context, &orders).await?;
    read_models::orders(store, context, &orders).await?;
    read_models::customers(store, context, &orders).await?;
    read_models::months(store, context, &orders).await?;
    read_models::replayed(store, context).await?;
    let streams = streams::run(store, context, &orders).await?;
    let deliveries = orders.iter().filter(|order| order.arrived_at().is_some());
    println!(
        "checked   {} orders, {} flagged, {} deliveries with a time, {} events, {} orders as of a \
         time: as in the file",
        orders.len(),
        orders.iter().filter(|order| order.is_flagged()).count(),
        deliveries.count(),
        streams.events,
        streams.as_of,
    );
    Ok(())
}

/// Compares what is kept under each key, as named values.
fn compare(
    what: &str,
    expected: &BTreeMap<String, Vec<Named>>,
    found: &BTreeMap<String, Vec<Named>>,
) -> anyhow::Result<()> {
    for (key, expected) in expected {
        let Some(found) = found.get(key) else {
            bail!("{what}: {key} is missing");
        };
        for (expected, found) in expected.iter().zip(found) {
            let ((name, expected), (_, found)) = (expected, found);
            ensure!(
                expected == found,
                "{what}: {name} of {key} is {found}, {expected} by the file"
            );
        }
    }
    if let Some(key) = found.keys().find(|key| !expected.contains_key(*key)) {
        bail!("{what}: {key} is not in the file");
    }
    Ok(())
}

type Named = (&'static str, String);

fn named(name: &'static str, value: impl Debug) -> Named {
    (name, format!("{value:?}"))
}

/// What is expected of each customer or month, say.
fn grouped<T: Default>(
    orders: &[Expected],
    key: impl Fn(&Expected) -> Option<String>,
    add: impl Fn(&mut T, &Expected),
) -> BTreeMap<String, T> {
    let mut groups = BTreeMap::<String, T>::new();
    for order in orders {
        if let Some(key) = key(order) {
            add(groups.entry(key).or_default(), order);
        }
    }
    groups
}
