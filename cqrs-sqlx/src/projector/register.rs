//! Registering subscriptions: their rows, and where they begin.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::{ColumnType, RowSource, Value};
use cqrs_core::{Error, Position, Result, StartAt, StoreErrorKind, Subscription, TenantScope};

use super::checkpoint::{self, read};
use super::dead_letters;
use super::horizon;
use super::queries;
use super::segments;
use crate::backend::{Backend, Parameter};
use crate::health::holders;
use crate::reads::{self, Place};
use crate::retention;
use crate::select::Select;
use crate::store::Shared;

/// After what time writers that are under way are named.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes sure that a subscription has its rows.
///
/// # Errors
///
/// `Usage` where it has several segments, or is to have, and must not.
pub(super) async fn ensure<B: Backend, T>(
    shared: &Arc<Shared<B>>,
    subscription: &Subscription<T>,
) -> Result<()> {
    let (checkpoints, _) = checkpoint::all(shared, subscription.name()).await?;
    if let Some(first) = checkpoints.first() {
        if let Some(version) = version(subscription).filter(|own| *own != first.version) {
            tracing::warn!(
                subscription = subscription.name(),
                version,
                found = first.version,
                "the rows are of another version of the projection and are not kept here; rebuild them"
            );
            return Ok(());
        }
        if !subscription.is_splittable()
            && (first.segment.of > 1 || segments::is_to_split(shared, subscription.name()).await?)
        {
            return Err(not_splittable(subscription.name()));
        }
        return set_splits(shared, subscription).await;
    }
    let start = start(shared, subscription.name(), subscription.start()).await?;
    let mut connection = queries::begin(shared).await?;
    let registered = insert::<B, T>(connection.get(), subscription, start).await;
    queries::end(connection, registered).await
}

async fn insert<B: Backend, T>(
    connection: &mut B::Connection,
    subscription: &Subscription<T>,
    start: Position,
) -> Result<()> {
    let name = Parameter::text(subscription.name());
    let segments = subscription.initial_segments();
    let sql = "INSERT INTO cqrs_subscription (name, segments, splits) VALUES ($1, $2, $3) \
               ON CONFLICT (name) DO NOTHING";
    let parameters = [
        name.clone(),
        Parameter::int(segments.into()),
        Parameter::new(ColumnType::Bool, Value::Bool(subscription.is_splittable())),
    ];
    if B::execute(connection, &sql.into(), &parameters).await? == 0
        && !checkpoint::lock_all::<B>(connection, subscription.name())
            .await?
            .is_empty()
    {
        // Another process was faster.
        return Ok(());
    }
    // So that what a batch under way removes is known.
    retention::hold::<B>(connection).await?;
    if let Some(gap) = retention::gap::<B>(connection, subscription.filter(), start).await? {
        tracing::warn!(
            subscription = subscription.name(),
            %gap,
            "the subscription begins where the log is not whole"
        );
    }
    // Of one that had this name and was removed. What it left out comes again.
    dead_letters::remove_all::<B>(connection, subscription.name()).await?;
    let segments = NewSegments {
        positions: vec![start; segments as usize],
        marks: vec![Position::START; segments as usize],
        version: version(subscription).unwrap_or(1),
    };
    insert_segments::<B>(connection, subscription.name(), &segments).await
}

/// Of what version the rows are that a subscription keeps in this code; `None` where they have
/// none.
pub(super) fn version<T>(subscription: &Subscription<T>) -> Option<u32> {
    subscription.rebuilds().map(|rebuilds| rebuilds.version)
}

/// What segments begin with.
#[derive(Debug)]
pub(super) struct NewSegments {
    /// Where each stands.
    pub(super) positions: Vec<Position>,
    /// What handlers with side effects are not given of each.
    pub(super) marks: Vec<Position>,
    pub(super) version: u32,
}

/// Inserts the segments of a subscription.
pub(super) async fn insert_segments<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segments: &NewSegments,
) -> Result<()> {
    let sql: Arc<str> = "INSERT INTO cqrs_segment \
                         (subscription, segment, segments, position, mark, version) \
                         VALUES ($1, $2, $3, $4, $5, $6) \
                         ON CONFLICT (subscription, segment) DO NOTHING"
        .into();
    let count = segments.positions.len() as i64;
    let starts = segments.positions.iter().zip(&segments.marks);
    for (number, (position, mark)) in (0..).zip(starts) {
        let parameters = [
            Parameter::text(name),
            Parameter::int(number),
            Parameter::int(count),
            Parameter::int(position.0),
            Parameter::int(mark.0),
            Parameter::int(segments.version.into()),
        ];
        B::execute(connection, &sql, &parameters).await?;
    }
    Ok(())
}

/// Puts segments in the place of others that are locked.
pub(super) async fn replace_segments<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    segments: &NewSegments,
) -> Result<()> {
    let sql = "DELETE FROM cqrs_segment WHERE subscription = $1";
    B::execute(connection, &sql.into(), &[Parameter::text(name)]).await?;
    insert_segments::<B>(connection, name, segments).await?;
    let sql = "UPDATE cqrs_subscription SET segments = $2 WHERE name = $1";
    let count = Parameter::int(segments.positions.len() as i64);
    B::execute(connection, &sql.into(), &[Parameter::text(name), count])
        .await
        .map(drop)
}

/// Removes the rows of a subscription, and its dead letters.
pub(super) async fn remove<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<u64> {
    dead_letters::remove_all::<B>(connection, name).await?;
    let name = [Parameter::text(name)];
    let sql = "DELETE FROM cqrs_segment WHERE subscription = $1";
    B::execute(connection, &sql.into(), &name).await?;
    let sql = "DELETE FROM cqrs_subscription WHERE name = $1";
    B::execute(connection, &sql.into(), &name).await
}

async fn set_splits<B: Backend, T>(
    shared: &Shared<B>,
    subscription: &Subscription<T>,
) -> Result<()> {
    let sql = "UPDATE cqrs_subscription SET splits = $2 WHERE name = $1 AND splits <> $2";
    let splits = Value::Bool(subscription.is_splittable());
    let parameters = [
        Parameter::text(subscription.name()),
        Parameter::new(ColumnType::Bool, splits),
    ];
    queries::execute(shared, &sql.into(), &parameters)
        .await
        .map(drop)
}

pub(super) fn not_splittable(name: &str) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!(
            "subscription {name:?} cannot have several segments: a handler does not say that it \
             is splittable (`RowProjection::ROW_PER_AGGREGATE`, `Projection::is_splittable`)"
        ),
    )
}

/// The position after which a new subscription reads.
pub(super) async fn start<B: Backend>(
    shared: &Arc<Shared<B>>,
    name: &str,
    start: StartAt,
) -> Result<Position> {
    match start {
        StartAt::Now => settled(shared, name).await,
        StartAt::Time(time) => {
            // What is not yet visible is behind it, and will be read.
            let horizon = settled(shared, name).await?;
            let first = first_since(shared, time).await?;
            Ok(first.map_or(horizon, |first| horizon.min(Position(first.0 - 1))))
        }
        _ => Ok(Position::START),
    }
}

/// A horizon that includes everything that was committed by now. Whoever holds the log for long is
/// named once.
async fn settled<B: Backend>(shared: &Arc<Shared<B>>, name: &str) -> Result<Position> {
    let mut known = B::Horizon::default();
    let mut is_told = false;
    loop {
        if let Some(position) = horizon::settled(shared, &mut known, PATIENCE).await? {
            return Ok(position);
        }
        if std::mem::replace(&mut is_told, true) {
            continue;
        }
        for holder in holders(shared).await? {
            tracing::warn!(
                subscription = name,
                %holder,
                "the subscription begins when a transaction has ended"
            );
        }
    }
}

/// The first position with an event that was recorded at this time or later.
async fn first_since<B: Backend>(
    shared: &Arc<Shared<B>>,
    time: DateTime<Utc>,
) -> Result<Option<Position>> {
    let sql = "SELECT min(position) FROM cqrs_event WHERE recorded_at >= $1";
    let select = Select {
        sql: sql.into(),
        parameters: vec![checkpoint::time(Some(time))],
    };
    let found = reads::rows(
        Place::Confined(shared, &TenantScope::System),
        &select,
        None,
        |row: &B::Row| read(row, |row| Ok(row.read_i64(0)?.map(Position))),
    )
    .await?;
    Ok(found.into_iter().next().flatten())
}
