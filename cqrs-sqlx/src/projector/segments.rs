//! Changing the number of segments while they are worked on.
//!
//! Segments are at different positions, and an aggregate may be of another segment after the
//! change. So all are first brought to a common position: the barrier, the furthest that any has
//! come by then, beyond which none goes. When all have arrived, they are replaced by the new ones,
//! which begin there, in one transaction that holds the locks of all. An event before the barrier
//! is applied by an old segment, one behind it by a new one, and the lock of a row is what it takes
//! to apply anything; so none is lost, none applied twice, and each aggregate keeps its order.
//!
//! Everything is in the rows: any worker of any process may find that all have arrived, and
//! whoever dies leaves nothing half done. A segment that is halted does not arrive before it is
//! resumed. One that is at the barrier and waits to try the event behind it again has arrived: the
//! barrier keeps it from trying, so nobody could wait for it. The new segments try that event anew.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_core::mapping::RowSource;
use cqrs_core::{Error, Position, Result, StoreErrorKind, Subscription};

use super::checkpoint::{self, Checkpoint, read, some};
use super::queries;
use super::register::{NewSegments, not_splittable, replace_segments};
use crate::backend::{Backend, Parameter};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// Whether the segments have arrived at their barrier and can be replaced.
pub(super) fn have_arrived(checkpoints: &[Checkpoint]) -> bool {
    !checkpoints.is_empty()
        && checkpoints
            .iter()
            .all(|checkpoint| checkpoint.barrier == Some(checkpoint.position) && checkpoint.active)
}

/// Asks for another number of segments, in a transaction: replaces them at once where all stand at
/// one position, else sets the barrier.
///
/// # Errors
///
/// `Usage` where there is no such subscription, where it must not have several, and for more than
/// there may be.
pub(super) async fn change<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
    count: u32,
) -> Result<()> {
    if count > Subscription::<()>::MOST_SEGMENTS {
        let message =
            format!("subscription {name:?} cannot have {count} segments: that is too many");
        return Err(Error::store(StoreErrorKind::Usage, message));
    }
    let count = i64::from(count.max(1));
    let checkpoints = checkpoint::lock_all::<B>(connection, name).await?;
    let Some(splits) = target::<B>(connection, name)
        .await?
        .map(|(_, splits)| splits)
    else {
        return Err(Error::unknown_subscription(name));
    };
    if count > 1 && !splits {
        return Err(not_splittable(name));
    }
    let sql = "UPDATE cqrs_subscription SET segments = $2 WHERE name = $1";
    let parameters = [Parameter::text(name), Parameter::int(count)];
    B::execute(connection, &sql.into(), &parameters).await?;
    let furthest = checkpoints.iter().map(|checkpoint| checkpoint.position);
    let barrier = furthest.max().filter(|_| checkpoints.len() as i64 != count);
    let sql = "UPDATE cqrs_segment SET barrier = $2 WHERE subscription = $1";
    let parameters = [Parameter::text(name), checkpoint::position(barrier)];
    B::execute(connection, &sql.into(), &parameters).await?;
    replace::<B>(connection, name).await
}

/// Replaces segments that have arrived by as many as there are to be; else does nothing.
async fn replace<B: Backend>(connection: &mut B::Connection, name: &str) -> Result<()> {
    let checkpoints = checkpoint::lock_all::<B>(connection, name).await?;
    if !have_arrived(&checkpoints) {
        return Ok(());
    }
    let Some((count, _)) = target::<B>(connection, name).await? else {
        return Ok(());
    };
    let Some(first) = checkpoints.first() else {
        return Ok(());
    };
    let position = first.position;
    // Aggregates are of other segments now. None must be above what was passed by all.
    let mark = checkpoints.iter().map(|checkpoint| checkpoint.mark).min();
    let count = usize::try_from(count).unwrap_or(1);
    let segments = NewSegments {
        positions: vec![position; count],
        marks: vec![mark.unwrap_or(Position::START); count],
        version: first.version,
    };
    replace_segments::<B>(connection, name, &segments).await?;
    if checkpoints.iter().any(|checkpoint| checkpoint.parks) {
        // Whose aggregates are parked is not looked for: each segment finds out.
        let replay_at: Option<DateTime<Utc>> = checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.replay_at)
            .min();
        let set_at = checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.replay_set_at)
            .max();
        let sql = "UPDATE cqrs_segment SET parks = TRUE, replay_at = $2, replay_set_at = $3 \
                   WHERE subscription = $1";
        let parameters = [
            Parameter::text(name),
            checkpoint::time(replay_at),
            checkpoint::time(set_at),
        ];
        B::execute(connection, &sql.into(), &parameters).await?;
    }
    tracing::info!(subscription = name, segments = count, %position, "segments were replaced");
    Ok(())
}

/// Replaces segments that were found to have arrived, in a transaction of its own.
pub(super) async fn settle<B: Backend>(shared: &Arc<Shared<B>>, name: &str) -> Result<()> {
    let mut connection = queries::begin(shared).await?;
    let replaced = replace::<B>(connection.get(), name).await;
    queries::end(connection, replaced).await
}

/// Whether a subscription is to have several segments.
pub(super) async fn is_to_split<B: Backend>(shared: &Arc<Shared<B>>, name: &str) -> Result<bool> {
    let select = Select {
        sql: "SELECT segments FROM cqrs_subscription WHERE name = $1".into(),
        parameters: vec![Parameter::text(name)],
    };
    let found = reads::rows(Place::Alone(shared), &select, None, |row: &B::Row| {
        read(row, |row| some(row.read_i32(0)?))
    });
    Ok(found.await?.into_iter().any(|segments| segments > 1))
}

/// How many segments a subscription is to have, and whether it may have several.
async fn target<B: Backend>(
    connection: &mut B::Connection,
    name: &str,
) -> Result<Option<(i64, bool)>> {
    let sql = "SELECT segments, splits FROM cqrs_subscription WHERE name = $1";
    let mut found = None;
    B::fetch(
        connection,
        &sql.into(),
        &[Parameter::text(name)],
        None,
        |row| {
            found = Some(read(row, |row| {
                Ok((some(row.read_i32(0)?)?.into(), some(row.read_bool(1)?)?))
            })?);
            Ok(())
        },
    )
    .await?;
    Ok(found)
}
