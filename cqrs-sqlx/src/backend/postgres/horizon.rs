//! How far the log can be trusted.
//!
//! Positions are drawn in one order and become visible in another: position 7 may still be in
//! flight when 8 can be read, and a reader that goes on "after 8" has lost 7 for ever. So readers
//! stop at the horizon: the highest position up to which everything that will ever exist is
//! visible to a statement that begins after the look.
//!
//! One look is two steps, in this order:
//!
//! 1. `M`, the last position that is visible.
//! 2. `H`, the transactions that hold the row-exclusive lock on the log.
//!
//! **Claim.** Once every transaction of `H` has ended, no position up to `M` can appear any more.
//!
//! **Proof.** Take a position `p <= M` and the transaction `T` that drew it.
//!
//! * Whoever inserts into the log holds the row-exclusive lock on it *before* a position is drawn:
//!   the server locks every table of a statement before it executes any of it, also for a cached
//!   plan. The sequence gave out `p` before `M`, and `M` before it was read, so `T` had the lock by
//!   then. (This is why `M` comes first: read the other way round, `T` could take the lock after the
//!   scan and draw `p` before `M` is read.)
//! * `T` keeps the lock until it ends. On commit the server first makes the transaction visible to
//!   new snapshots and only then releases its locks; an abort leaves nothing to become visible.
//!   `ROLLBACK TO SAVEPOINT` releases the lock early only where everything that was inserted under
//!   it has been undone with it.
//! * So at the second step either `T` holds the lock and is in `H`, or it has ended and is
//!   visible, or will never be. When all of `H` have ended, that holds for every `p <= M`. ∎
//!
//! **What the sequence gave out last is no horizon**, though it would seem to do for `M`. A position
//! that was drawn is not flushed before something is committed: a server that crashes may give it
//! out again, to a transaction that begins when the horizon is already behind it. What is visible
//! was flushed, and the sequence with it, so no position up to the horizon is ever given out again,
//! and a horizon that was found before a crash may be used after it. (Sessions that write events
//! with `synchronous_commit` off give that up, as they give up the events themselves.)
//!
//! `M` is looked for among the last 1,024 positions that were given out. A transaction that has
//! written more is mostly still under way, and each look would pass over all of its rows. Where
//! nobody holds the lock, `M` is looked for in all of the log.
//!
//! Both steps are one statement, so that its plan is kept: planning it costs more than running it.
//! That a statement has one snapshot does no harm: it is as old as `M`, and `pg_locks` is not read
//! through it. The order is that of the plan, which has no choice. What is joined refers to the row
//! of the log, and its `DISTINCT` keeps it from being merged into the query around it. So the only
//! join there is takes the row first, of which a CTE that is materialized keeps a copy, and begins
//! with `pg_locks` afterwards.
//!
//! Whatever takes that lock counts as a writer: a retention `DELETE`, and a prepared transaction,
//! whose lock has no process (`pid` is NULL). What merely waits for the lock does not: it has
//! drawn nothing yet. A transaction that never touches the log does not count, however long it
//! runs. Locks of a standby's primary cannot be seen on the standby: look on the primary.
//!
//! A holder is known by its virtual transaction id, which is not used again while the server runs.
//! A restart ends every holder except the prepared transactions, and gives those another id, whose
//! first part is -1. Such an id that was not there before may be any of the holders that seem to
//! have gone, so it is added to all of the candidates that wait.
//!
//! [`model`](super::model) checks this code, with the writers and the readers around it, in every
//! interleaving of a few of them.

use std::collections::BTreeSet;

use cqrs_core::Position;
use sqlx::{PgConnection, Row};

use crate::backend::Horizon;

/// How many candidates are kept. Leaving one out is always safe: the horizon then moves in larger
/// steps.
const MAX_PENDING: usize = 32;

/// A row for each holder, and one without where there is none.
const LOOK: &str = "WITH log AS MATERIALIZED (
        SELECT s.last_value, s.is_called,
            (SELECT max(position) FROM cqrs_event WHERE position > s.last_value - 1024) AS visible
        FROM cqrs_event_position AS s)
    SELECT log.last_value, log.is_called, log.visible, held.virtualtransaction
    FROM log LEFT JOIN LATERAL (
        SELECT DISTINCT l.virtualtransaction FROM pg_locks AS l
        WHERE log.last_value IS NOT NULL
          AND l.locktype = 'relation'
          AND l.relation = 'cqrs_event'::regclass
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.mode = 'RowExclusiveLock'
          AND l.granted
    ) AS held ON TRUE";

const LOOK_FURTHER: &str = "SELECT max(position) FROM cqrs_event WHERE position <= $1";

/// What the first step of a look finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// The last position that is visible; 0 where none was found.
    pub(super) visible: i64,
    /// The last that was drawn.
    pub(super) drawn: i64,
}

/// What is known of the horizon, from one look to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct PgHorizon {
    position: i64,
    /// Oldest first, so by ascending position.
    pending: Vec<Candidate>,
    /// The prepared transactions that outlived a restart.
    recovered: BTreeSet<String>,
}

/// A position that becomes the horizon when its holders have ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Candidate {
    position: i64,
    holders: BTreeSet<String>,
}

/// Looks once. What is known changes only when the whole answer has arrived, so the future may be
/// dropped.
pub(super) async fn look(
    connection: &mut PgConnection,
    known: &mut PgHorizon,
) -> Result<Horizon, sqlx::Error> {
    let rows = sqlx::query(LOOK).fetch_all(&mut *connection).await?;
    let log = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let last_value: i64 = log.try_get(0)?;
    let is_called: bool = log.try_get(1)?;
    let visible: Option<i64> = log.try_get(2)?;
    let mut seen = Seen {
        visible: visible.unwrap_or(0),
        drawn: if is_called {
            last_value
        } else {
            last_value - 1
        },
    };
    let holders = rows.iter().map(|row| row.try_get::<Option<String>, _>(3));
    let holders: Vec<_> = holders.collect::<Result<_, _>>()?;
    let holders: BTreeSet<_> = holders.into_iter().flatten().collect();
    if visible.is_none() && holders.is_empty() && seen.drawn > 0 {
        // All that was drawn by then has been decided.
        let found: Option<i64> = sqlx::query_scalar(LOOK_FURTHER)
            .bind(seen.drawn)
            .fetch_one(connection)
            .await?;
        seen.visible = found.unwrap_or(0);
    }
    Ok(known.observe(seen, holders))
}

impl PgHorizon {
    /// Takes in what one look found: what is visible, and who holds the lock.
    pub(super) fn observe(&mut self, seen: Seen, holders: BTreeSet<String>) -> Horizon {
        if seen.drawn < self.highest() {
            // The server lost history: it was restored, or replaced by one that lagged behind. What
            // was known is not known of this one.
            *self = Self::default();
        }
        self.forget_ended(&holders);
        self.take_resolved(&holders, seen.visible);
        let writers = !holders.is_empty() && seen.drawn > self.position;
        if !holders.is_empty() && seen.visible > self.highest() {
            self.pending.push(Candidate {
                position: seen.visible,
                holders,
            });
            self.thin_out();
        }
        Horizon {
            position: Position(self.position),
            writers,
        }
    }

    /// The highest position that was seen. It was flushed, so the sequence is never behind it.
    fn highest(&self) -> i64 {
        self.pending
            .last()
            .map_or(self.position, |candidate| candidate.position)
    }

    fn forget_ended(&mut self, holders: &BTreeSet<String>) {
        let recovered: BTreeSet<String> = holders
            .iter()
            .filter(|holder| is_recovered(holder))
            .cloned()
            .collect();
        for candidate in &mut self.pending {
            candidate.holders.retain(|holder| holders.contains(holder));
            candidate
                .holders
                .extend(recovered.difference(&self.recovered).cloned());
        }
        self.recovered = recovered;
    }

    fn take_resolved(&mut self, holders: &BTreeSet<String>, visible: i64) {
        if holders.is_empty() {
            self.position = self.highest().max(visible);
            self.pending.clear();
        } else if let Some(index) = self
            .pending
            .iter()
            .rposition(|candidate| candidate.holders.is_empty())
        {
            self.position = self.pending[index].position;
            self.pending.drain(..=index);
        }
    }

    /// Keeps every second candidate where there are too many; always the oldest, which is the
    /// next to be resolved.
    fn thin_out(&mut self) {
        if self.pending.len() > MAX_PENDING {
            let mut index = 0;
            self.pending.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }
}

/// Whether this virtual transaction id is one of a prepared transaction that was read back after a
/// restart.
fn is_recovered(holder: &str) -> bool {
    holder.starts_with("-1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Everything that was drawn is visible.
    fn all(position: i64) -> Seen {
        Seen {
            visible: position,
            drawn: position,
        }
    }

    fn at(position: i64, writers: bool) -> Horizon {
        Horizon {
            position: Position(position),
            writers,
        }
    }

    #[test]
    fn without_writers_the_horizon_is_the_last_position_that_is_visible() {
        let mut known = PgHorizon::default();
        assert_eq!(known.observe(all(0), holders(&[])), at(0, false));
        assert_eq!(known.observe(all(7), holders(&[])), at(7, false));
        let seen = Seen {
            visible: 8,
            drawn: 12,
        };
        assert_eq!(known.observe(seen, holders(&[])), at(8, false));
    }

    #[test]
    fn what_was_drawn_and_cannot_be_seen_yet_is_a_reason_to_look_again() {
        let mut known = PgHorizon::default();
        known.observe(all(7), holders(&[]));
        let seen = Seen {
            visible: 7,
            drawn: 8,
        };
        assert_eq!(known.observe(seen, holders(&["3/1"])), at(7, true));
        assert_eq!(known.observe(seen, holders(&[])), at(7, false));
    }

    #[test]
    fn the_newest_events_may_be_removed() {
        let mut known = PgHorizon::default();
        known.observe(all(7), holders(&[]));
        let seen = Seen {
            visible: 0,
            drawn: 7,
        };
        assert_eq!(known.observe(seen, holders(&["3/1"])), at(7, false));
        assert_eq!(known.observe(seen, holders(&[])), at(7, false));
    }

    #[test]
    fn a_writer_holds_the_horizon_until_it_ends() {
        let mut known = PgHorizon::default();
        assert_eq!(known.observe(all(5), holders(&[])), at(5, false));
        assert_eq!(known.observe(all(8), holders(&["3/1"])), at(5, true));
        assert_eq!(known.observe(all(9), holders(&["3/1", "4/1"])), at(5, true));
        assert_eq!(known.observe(all(9), holders(&["4/1"])), at(8, true));
        assert_eq!(known.observe(all(9), holders(&[])), at(9, false));
    }

    #[test]
    fn writers_that_overlap_without_end_do_not_stall_it() {
        let mut known = PgHorizon::default();
        let mut last = 0;
        for step in 1..1000_i64 {
            let (older, newer) = (format!("3/{step}"), format!("3/{}", step + 1));
            let horizon = known.observe(all(step), holders(&[&older, &newer]));
            assert!(horizon.position.0 >= step - 2, "{horizon:?} at {step}");
            assert!(horizon.position.0 >= last);
            last = horizon.position.0;
        }
    }

    #[test]
    fn a_holder_that_has_drawn_nothing_new_is_no_reason_to_look_again() {
        let mut known = PgHorizon::default();
        known.observe(all(5), holders(&[]));
        assert_eq!(known.observe(all(5), holders(&["3/1"])), at(5, false));
    }

    #[test]
    fn the_list_of_candidates_is_bounded_and_still_resolves() {
        let mut known = PgHorizon::default();
        for position in 1..=500 {
            let short = format!("4/{position}");
            assert_eq!(
                known.observe(all(position), holders(&["3/1", &short])),
                at(0, true)
            );
            assert!(known.pending.len() <= MAX_PENDING);
        }
        assert_eq!(known.pending[0].position, 1, "the oldest is kept");
        let horizon = known.observe(all(500), holders(&["4/500"]));
        assert!(horizon.position.0 >= 1 && horizon.writers);
        assert_eq!(known.observe(all(500), holders(&[])), at(500, false));
    }

    #[test]
    fn a_prepared_transaction_that_outlives_a_restart_still_holds() {
        let mut known = PgHorizon::default();
        assert_eq!(known.observe(all(7), holders(&["3/12"])), at(0, true));
        // The restart gave it another id.
        assert_eq!(known.observe(all(7), holders(&["-1/744"])), at(0, true));
        assert_eq!(
            known.observe(all(9), holders(&["-1/744", "4/2"])),
            at(0, true)
        );
        assert_eq!(known.observe(all(9), holders(&["4/2"])), at(7, true));
    }

    #[test]
    fn lost_history_starts_over() {
        let mut known = PgHorizon::default();
        known.observe(all(100), holders(&[]));
        assert_eq!(known.observe(all(90), holders(&["3/1"])), at(0, true));
        assert_eq!(known.observe(all(91), holders(&[])), at(91, false));
    }
}
