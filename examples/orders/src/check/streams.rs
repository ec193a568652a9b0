//! The log: the events of each order, and what each order was at any time.

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};
use cqrs_core::{AsOf, EventHistory, RequestContext, Store, UnitOfWork};

use super::expected::{Expected, Then};
use crate::order::Order;

/// How many orders are read in one unit of work.
const PAGE: usize = 500;

/// How much was compared.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) events: usize,
    pub(super) as_of: usize,
}

/// Compares the history of each order, and the order as of each of its times and the minute before.
pub(super) async fn run<S: Store>(
    store: &S,
    context: &RequestContext,
    orders: &[Expected],
) -> anyhow::Result<Streams> {
    let mut streams = Streams::default();
    for page in orders.chunks(PAGE) {
        let found = store
            .read(context, async |uow| {
                let mut found = Vec::new();
                for order in page {
                    found.push(read(uow, order).await?);
                }
                Ok(found)
            })
            .await?;
        for (order, (events, states)) in page.iter().zip(found) {
            compare_events(order, &events)?;
            compare_states(order, &states)?;
            streams.events += events.len();
            streams.as_of += states.len();
        }
    }
    Ok(streams)
}

type Events = Vec<(String, DateTime<Utc>)>;
type States = Vec<Option<Order>>;

async fn read<U: UnitOfWork>(uow: &mut U, order: &Expected) -> cqrs_core::Result<(Events, States)> {
    let mut repository = uow.repository::<Order>();
    let events = repository.events(order.order.clone()).await?;
    let events = events
        .iter()
        .map(|event| (event.event_type().to_owned(), event.occurred_at()))
        .collect();
    let mut states = Vec::new();
    for time in times(order) {
        let id = order.order.clone();
        states.push(repository.find_as_of(id, AsOf::Time(time)).await?);
    }
    Ok((events, states))
}

/// When something became known of an order, and the minute before each of that: the first of them is
/// before it was placed, most others are between two events.
fn times(order: &Expected) -> Vec<DateTime<Utc>> {
    let at = order.events.iter().map(|event| event.known_at);
    let mut times: Vec<_> = at
        .flat_map(|at| [at - TimeDelta::minutes(1), at])
        .chain([DateTime::<Utc>::MAX_UTC])
        .collect();
    times.dedup();
    times
}

fn compare_events(order: &Expected, found: &Events) -> anyhow::Result<()> {
    let expected = order.events.iter();
    let expected: Events = expected
        .map(|event| (event.event_type.to_owned(), event.known_at))
        .collect();
    ensure!(
        *found == expected,
        "log: the events of {} are {found:?}, {expected:?} by the file",
        order.order
    );
    Ok(())
}

fn compare_states(order: &Expected, found: &States) -> anyhow::Result<()> {
    for (time, found) in times(order).into_iter().zip(found) {
        let expected = order.at(time);
        let state = found.as_ref().map(|found| Then {
            version: found.root.version(),
            status: found.status.to_string(),
            approved: found.approved_at,
            shipped: found.shipped_at,
            delivered: found.delivered_at,
            is_late: found.is_late,
        });
        ensure!(
            state == expected,
            "log: as of {time}, {} is {state:?}, {expected:?} by the file",
            order.order
        );
        let Some(found) = found else { continue };
        ensure!(
            found.customer == order.customer && found.promised == Some(order.promised),
            "log: as of {time}, {} is of {} and promised for {:?}; by the file {} and {}",
            order.order,
            found.customer,
            found.promised,
            order.customer,
            order.promised
        );
    }
    Ok(())
}
