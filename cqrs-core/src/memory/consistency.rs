//! Checking read models in memory.

use super::state::Shared;
use crate::consistency::Shadow;
use crate::error::{Error, Result};
use crate::mapping::Entity;
use crate::projection::RowProjection;

/// Compares rows with the log, both as they are now.
pub(super) fn compare<P: RowProjection>(shared: &Shared, shadow: &mut Shadow<'_, P>) -> Result<()> {
    let name = shadow.subscription().to_owned();
    let (end, rows, log) = {
        let state = shared.lock();
        let end = match state.subscriptions.get(&name) {
            Some(entry) => {
                for position in entry.dead_positions() {
                    shadow.leave_out(position);
                }
                entry.position()
            }
            None if shared.inline.current().contains(&name) => state.end(),
            None => return Err(Error::unknown_subscription(&name)),
        };
        let rows = state.read_tables.get(P::Row::table().name());
        (end, rows.cloned().unwrap_or_default(), state.log().to_vec())
    };
    shadow.stands_at(end);
    while shadow.next_part()? {
        for event in log.iter().take_while(|event| event.position() <= end) {
            shadow.add(event)?;
        }
        shadow.tell(end, end);
        if !shadow.has_room() {
            continue;
        }
        shadow.folded();
        for row in rows.values() {
            shadow.compare(row.values())?;
        }
    }
    Ok(())
}
