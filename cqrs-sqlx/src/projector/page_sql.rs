//! The statements that claim a page, or look at it.

use cqrs_core::EventFilter;
use cqrs_core::mapping::{ColumnType, Value};

use super::checkpoint::FORGETS_FAILURES;
use crate::backend::{Dialect, Parameter};
use crate::log::EVENT_COLUMNS;
use crate::statements::list;

/// How many columns [`EVENT_COLUMNS`] are.
pub(super) const EVENT_WIDTH: usize = 18;

/// The columns of [`checkpoint_sql`] that are read of it.
const CLAIM_COLUMNS: [&str; 12] = [
    "c.segment",
    "c.segments",
    "c.position",
    "c.upto",
    "c.most",
    "c.failed_attempts",
    "c.parks",
    "c.due",
    "c.others",
    "c.now",
    "c.changing",
    "c.mark",
];

/// How many positions a worker lets another segment fall behind its own.
const FAR: i64 = 10_000;

/// How many they are.
pub(super) const CLAIM_WIDTH: usize = CLAIM_COLUMNS.len();

/// What becomes of a row whose checkpoint is moved.
pub(super) fn advanced(dialect: &Dialect) -> String {
    format!("{FORGETS_FAILURES}, updated_at = {}", dialect.now)
}

/// What becomes of the checkpoint that is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is locked until the transaction ends.
    Lock,
    /// It is recognised when it is moved.
    Recognise,
}

/// Whether a worker says which segments it is not to look at, and at which it is at home.
pub(super) fn takes_turns(dialect: &Dialect) -> bool {
    !dialect.row_version.is_empty()
}

/// Where the filters are bound, behind the parameters of [`checkpoint_sql`].
fn first_filter(dialect: &Dialect) -> usize {
    if takes_turns(dialect) { 8 } else { 5 }
}

/// Finds the segment that is furthest behind of those that have anything to do. Where the clock of
/// the database was set back since a failure was recorded or a replay was set, it is not waited
/// for. The parameters are the name, the horizon, the size of a page, and the number of a segment
/// or -1; where [turns are taken](takes_turns), the segments that are left out, and the two numbers
/// of a [home](super::turns::Home), which comes before others that are not [`FAR`] behind it.
pub(super) fn checkpoint_sql(dialect: &Dialect, version: Option<u32>, hold: Hold) -> String {
    let of_version = version.map(|version| format!(" AND s.version = {version}"));
    let of_version = of_version.unwrap_or_default();
    let now = dialect.now;
    let (held, lock) = match hold {
        Hold::Lock => (dialect.open_page.to_owned(), dialect.claim),
        Hold::Recognise => (format!(", {} AS seen", version_of("s", dialect)), ""),
    };
    let (free, first) = if takes_turns(dialect) {
        let is_left_out = (dialect.in_list)("s.segment", ColumnType::Int32, "$5");
        let ahead = format!("CASE WHEN (s.segment + $6) % $7 = 0 THEN {FAR} ELSE 0 END");
        (format!(" AND NOT {is_left_out}"), format!(" - {ahead}"))
    } else {
        (String::new(), String::new())
    };
    let end = "CASE WHEN s.barrier < $2 THEN s.barrier ELSE $2 END";
    let due =
        format!("(s.replay_at <= {now} OR s.replay_at IS NOT NULL AND s.replay_set_at > {now})");
    format!(
        "SELECT s.segment, s.segments, s.position, \
         CASE WHEN {end} < s.position THEN s.position ELSE {end} END AS upto, \
         CASE WHEN s.failed_attempts > 0 THEN 1 ELSE $3 END AS most, \
         s.failed_attempts, s.parks, coalesce({due}, FALSE) AS due, \
         (SELECT min(o.position) FROM cqrs_segment AS o \
          WHERE o.subscription = $1 AND o.segment <> s.segment) AS others, {now} AS now, \
         s.barrier IS NOT NULL AS changing, s.mark{held} \
         FROM cqrs_segment AS s \
         WHERE s.subscription = $1 AND s.status = 'active' AND ($4 < 0 OR s.segment = $4){free}{of_version} \
         AND (s.position < {end} OR {due}) \
         AND (s.retry_at IS NULL OR s.retry_at <= {now} OR s.updated_at > {now}) \
         ORDER BY s.position{first}, s.segment LIMIT 1{lock}"
    )
}

/// Where a page's statement finds its values.
pub(super) struct Places<'a> {
    pub(super) from: &'a str,
    pub(super) upto: &'a str,
    pub(super) most: &'a str,
    pub(super) segment: &'a str,
    pub(super) segments: &'a str,
}

/// Reads columns of a page; the filters are bound from `first` on.
///
/// By positions: by the index of streams, each page would find all events of a type, and sort them.
pub(super) fn page_sql(
    dialect: &Dialect,
    read: &str,
    filter: &EventFilter,
    places: &Places<'_>,
    first: usize,
) -> String {
    let Places {
        from,
        upto,
        most,
        segment,
        segments,
    } = places;
    let columns = [
        filter.aggregate_types().map(|_| "aggregate_type"),
        filter.event_types().map(|_| "event_type"),
    ];
    let filters: String = columns
        .into_iter()
        .flatten()
        .zip(first..)
        .map(|(column, number)| {
            let column = format!("{}{column}", dialect.unindexed);
            let list = format!("${number}");
            let test = (dialect.in_list)(&column, ColumnType::Text, &list);
            format!(" AND {test}")
        })
        .collect();
    let in_segment = (dialect.in_segment)(segment, segments);
    format!(
        "SELECT {read} FROM cqrs_event WHERE position > {from} AND position <= {upto}\
         {filters} AND ({segments} = 1 OR {in_segment}) ORDER BY position LIMIT {most}"
    )
}

pub(super) fn filter_parameters(filter: &EventFilter) -> Vec<Parameter> {
    [filter.aggregate_types(), filter.event_types()]
        .into_iter()
        .flatten()
        .map(|types| {
            let types = types.iter().map(|&name| Value::Text(name.to_owned()));
            Parameter::List(ColumnType::Text, types.collect())
        })
        .collect()
}

/// The version of a checkpoint's row, as text. A server that has crashed gives the number of a
/// transaction that was lost to another one, so the time at which a page was committed is a part; as a
/// number, since sessions write times differently.
fn version_of(row: &str, dialect: &Dialect) -> String {
    format!(
        "concat({row}.{}, ' ', extract(epoch FROM {row}.updated_at))",
        dialect.row_version
    )
}

/// Moves a checkpoint whose row is still of the version that was seen, and returns the new one.
///
/// The commit does not wait for the disk: a crash takes rows and checkpoint together, and leaves the
/// log that they are made of.
///
/// It waits for nobody who has the row: whoever has it is about to give it another version, and may
/// be waiting for a table that the rows of the page are written to.
pub(super) fn advance_seen_sql(dialect: &Dialect) -> String {
    let (lock, advanced) = (dialect.claim, advanced(dialect));
    let (seen, new) = (version_of("s", dialect), version_of("u", dialect));
    format!(
        "UPDATE cqrs_segment AS u SET position = $3, {advanced} \
         FROM (SELECT s.segment FROM cqrs_segment AS s \
         WHERE s.subscription = $1 AND s.segment = $2 AND {seen} = $4{lock}) AS s \
         WHERE u.subscription = $1 AND u.segment = s.segment RETURNING {new}{}",
        dialect.without_flush
    )
}

/// Finds a checkpoint while its row is of the version that was seen.
pub(super) fn is_seen_sql(dialect: &Dialect) -> String {
    format!(
        "SELECT FROM cqrs_segment AS s WHERE s.subscription = $1 AND s.segment = $2 AND {} = $3",
        version_of("s", dialect)
    )
}

/// Claims, moves the checkpoint and reads the page: a row with what is claimed, then one for each
/// event.
pub(super) fn whole_sql(dialect: &Dialect, version: Option<u32>, filter: &EventFilter) -> String {
    let checkpoint = checkpoint_sql(dialect, version, Hold::Lock);
    let positions = page_sql(dialect, "position", filter, &CLAIMED, first_filter(dialect));
    let advanced = advanced(dialect);
    let rows = claim_and_events(dialect, filter, &CLAIM_COLUMNS, "");
    format!(
        "WITH claimed AS MATERIALIZED ({checkpoint}), \
         moved AS (UPDATE cqrs_segment AS s SET position = coalesce(\
         (SELECT position FROM ({positions}) AS p OFFSET c.most - 1), c.upto), {advanced} \
         FROM claimed AS c WHERE s.subscription = $1 AND s.segment = c.segment) {rows}"
    )
}

/// Reads a checkpoint and its page, and locks and moves nothing; the rows have the version of that
/// of the checkpoint behind them. What has to be claimed comes without a page.
pub(super) fn look_sql(dialect: &Dialect, version: Option<u32>, filter: &EventFilter) -> String {
    let checkpoint = checkpoint_sql(dialect, version, Hold::Recognise);
    let columns = [CLAIM_COLUMNS.as_slice(), &["c.seen"]].concat();
    let is_free = " WHERE NOT (c.parks OR c.due OR c.changing OR c.failed_attempts > 0)";
    let rows = claim_and_events(dialect, filter, &columns, is_free);
    format!("WITH claimed AS MATERIALIZED ({checkpoint}) {rows}")
}

const CLAIMED: Places<'_> = Places {
    from: "c.position",
    upto: "c.upto",
    most: "c.most",
    segment: "c.segment",
    segments: "c.segments",
};

/// Nothing keeps, counts or sorts the events on their way to the client.
fn claim_and_events(
    dialect: &Dialect,
    filter: &EventFilter,
    claim: &[&str],
    is_read: &str,
) -> String {
    let page = page_sql(
        dialect,
        EVENT_COLUMNS,
        filter,
        &CLAIMED,
        first_filter(dialect),
    );
    let nulls = |count| list(std::iter::repeat_n("NULL", count));
    let (no_event, no_claim) = (nulls(EVENT_WIDTH), nulls(claim.len()));
    let claim = list(claim);
    format!(
        "SELECT {no_event}, {claim} FROM claimed AS c UNION ALL \
         SELECT e.*, {no_claim} FROM claimed AS c CROSS JOIN LATERAL ({page}) AS e{is_read}"
    )
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use cqrs_core::{
        Envelope, EventSet, PayloadError, Projection, ProjectionTransaction, RawPayload, Result,
        Subscription,
    };
    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

    use super::*;
    use crate::backend::Backed;
    use crate::{SqlTransaction, Sqlite};

    struct Orders;

    impl EventSet for Orders {
        fn aggregate_types() -> Option<&'static [&'static str]> {
            Some(&["order"])
        }

        fn decode(_: &Envelope<RawPayload>) -> std::result::Result<Option<Self>, PayloadError> {
            Ok(None)
        }
    }

    struct Placed;

    impl<T: ProjectionTransaction> Projection<T> for Placed {
        type Event = Orders;

        fn name(&self) -> &str {
            "placed"
        }

        fn event_types(&self) -> Option<&'static [&'static str]> {
            Some(&["order.placed"])
        }

        async fn apply(&self, _: &[Envelope<Orders>], _: &mut T) -> Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_page_is_read_by_positions() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let log = include_str!("../../migrations/sqlite/0001_log.sql");
        sqlx::raw_sql(log).execute(&mut connection).await.unwrap();
        let subscription = Subscription::<SqlTransaction<Sqlite>>::new(Placed);
        let places = Places {
            from: "$1",
            upto: "$2",
            most: "$3",
            segment: "$4",
            segments: "$5",
        };
        let sql = page_sql(&Sqlite::DIALECT, "*", subscription.filter(), &places, 6);
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let by_position = "SEARCH cqrs_event USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
        assert_eq!(plan[0].3, by_position, "{plan:?}");
        assert!(
            !plan.iter().any(|step| step.3.contains("TEMP B-TREE")),
            "{plan:?}"
        );
    }
}
