//! What a refused statement, commit or value leaves behind: the whole of what was asked for, or
//! nothing of it, and a store that goes on.

mod commit;
mod ended;
mod orders;
mod own_sql;
mod silence;
mod values;

use cqrs_core::CommitReceipt;

use cqrs_integration::each::{Fresh, Kind};

/// The events of the log, in its order.
async fn logged<K: Kind>(fresh: &Fresh<K>) -> Vec<String> {
    let id = K::either("replace(event_id::text, '-', '')", "lower(hex(event_id))");
    let sql = format!("SELECT {id} FROM cqrs_event ORDER BY position");
    K::texts(&fresh.url, sql).await
}

/// The events that a receipt says were written.
fn receipted<T>(receipt: &CommitReceipt<T>) -> Vec<String> {
    let events = receipt.events().iter();
    events.map(|id| id.simple().to_string()).collect()
}
