//! Consistency checks: what differs between a table and the log is found and named.

use std::num::NonZeroUsize;

use super::Harness;
use super::fixtures::{
    Counter, CounterEvent, CounterTotal, CounterTotals, LabelUses, LockerList, ParcelList,
};
use super::projections::{all, fold, history};
use super::support::{Bench, assert_usage, begin, err, north, ok, system};
use crate::consistency::{ConsistencyCheck, ConsistencyReport, RowDifferenceKind};
use crate::envelope::Envelope;
use crate::error::Result;
use crate::mapping::Value;
use crate::projection::RowProjection;
use crate::subscription::Subscription;

async fn check<H: Harness, P: RowProjection>(
    bench: &Bench<'_, H>,
    projection: &P,
    rows_at_once: usize,
) -> ConsistencyReport {
    let rows = NonZeroUsize::new(rows_at_once).unwrap_or(NonZeroUsize::MIN);
    let check = ConsistencyCheck::of(projection).rows_at_once(rows);
    ok(check.run(&bench.store, &system()).await)
}

/// Rows that are the fold of the log are consistent, also where the projector is behind, in parts
/// and at once.
pub async fn a_check_finds_nothing_where_rows_are_right<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for round in 0..3 {
        for rows_at_once in [1, 2, 1_000] {
            let reports = [
                check(&bench, &ParcelList, rows_at_once).await,
                check(&bench, &LabelUses, rows_at_once).await,
                check(&bench, &CounterTotals, rows_at_once).await,
                check(&bench, &LockerList, rows_at_once).await,
            ];
            for report in &reports {
                assert!(report.is_consistent(), "{report}");
                assert!(report.differences.is_empty());
            }
            if round == 1 {
                assert_eq!(reports[0].rows, fold(&bench, ParcelList).await.len() as u64);
                assert_eq!(reports[1].rows, fold(&bench, LabelUses).await.len() as u64);
                let last = bench.log().await.last().map(Envelope::position);
                assert_eq!(Some(reports[2].position), last);
                assert!(reports.iter().all(|report| report.events > 0));
            }
        }
        match round {
            0 => {
                history(&bench).await;
                bench.project().await;
            }
            // The projector has not seen this.
            _ => {
                let mut counter = bench.counter(100 + round).await;
                counter.add(1);
                bench.save(&system(), counter).await;
            }
        }
    }
}

/// Writes into the rows of [`CounterTotals`] what does not belong there.
struct Vandal;

impl RowProjection for Vandal {
    type Event = CounterEvent;
    type Row = CounterTotal;
    const NAME: &'static str = "conformance_vandal";

    fn key(&self, event: &Envelope<CounterEvent>) -> Result<Option<(i64, String)>> {
        let counter: i64 = event.aggregate_id()?;
        let direction = if counter == 3 { "sideways" } else { "up" };
        Ok(Some((counter, direction.to_owned())))
    }

    fn apply(&self, row: &mut Option<CounterTotal>, event: &Envelope<CounterEvent>) -> Result<()> {
        match event.aggregate_id()? {
            1_i64 => *row = None,
            2 => {
                if let Some(row) = row {
                    row.sum = 1_000;
                }
            }
            3 => {
                *row = Some(CounterTotal {
                    counter: 3,
                    direction: "sideways".to_owned(),
                    sum: 7,
                    additions: 1,
                });
            }
            _ => {}
        }
        Ok(())
    }
}

/// A row that is missing, one that is extra and one with another value are named, with the column
/// and both values; nothing else is.
pub async fn a_check_names_the_rows_that_differ<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for id in 1..=5 {
        let mut counter: Counter = bench.counter(id).await;
        counter.add(10);
        bench.save(&system(), counter).await;
    }
    bench.project().await;
    let before: Vec<CounterTotal> = all(&bench, &system()).await;
    let make = || Subscription::new(crate::projection::Rows(Vandal));
    h.run_subscription(&bench.store, &make).await;
    for rows_at_once in [1, 1_000] {
        let report = check(&bench, &CounterTotals, rows_at_once).await;
        let counts = (report.missing, report.extra, report.different, report.rows);
        assert_eq!(counts, (1, 1, 1, before.len() as u64), "{report}");
        let key =
            |counter, direction: &str| vec![Value::Int(counter), Value::Text(direction.to_owned())];
        let found: Vec<_> = report
            .differences
            .iter()
            .map(|row| (row.kind, row.key.clone(), row.columns.len()))
            .collect();
        assert_eq!(
            found,
            [
                (RowDifferenceKind::Missing, key(1, "up"), 2),
                (RowDifferenceKind::Different, key(2, "up"), 1),
                (RowDifferenceKind::Extra, key(3, "sideways"), 2),
            ]
        );
        let column = &report.differences[1].columns[0];
        assert_eq!(column.column, "sum");
        assert_eq!(column.found, Some(Value::Int(1_000)));
        let sum = before
            .iter()
            .find(|row| (row.counter, &*row.direction) == (2, "up"));
        assert_eq!(column.expected, sum.map(|row| Value::Int(row.sum)));
    }
    let few = ConsistencyCheck::of(&CounterTotals).report_at_most(1);
    let report = ok(few.run(&bench.store, &system()).await);
    let counts = (report.missing, report.extra, report.different);
    assert_eq!((counts, report.differences.len()), ((1, 1, 1), 1));
}

/// A check is for the system, and of a subscription that there is.
pub async fn a_check_needs_the_system_and_a_subscription<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let check = ConsistencyCheck::of(&CounterTotals);
    assert_usage(&err(check.run(&bench.store, &north()).await));
    let unknown = ConsistencyCheck::of(&CounterTotals).subscription("nobody");
    assert_usage(&err(unknown.run(&bench.store, &system()).await));
}
