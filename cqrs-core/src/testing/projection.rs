//! Given events, then rows.

use std::collections::HashMap;
use std::fmt::{self, Debug};

use chrono::{DateTime, Utc};

use super::diff::diff;
use super::recorder::Recorder;
use crate::context::TenantId;
use crate::envelope::{Envelope, RawPayload};
use crate::error::Result;
use crate::event::{DomainEvent, EventSet};
use crate::projection::{RowAddress, RowProjection};
use crate::read_model::ReadModel;
use crate::subscription::EventFilter;

/// A projection that has seen nothing yet, at the beginning of 1970.
///
/// Ids are the same in each run: an event has its position (1, 2, 3, ...) as its `event_id`, and a
/// `correlation_id` of zeros.
///
/// # Example
///
/// ```
/// use cqrs_core::testing::projection;
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "account")]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// # #[derive(Debug, Clone, PartialEq, ReadModel)]
/// # #[read_model(table = "account_sum")]
/// # struct Sum { #[read_model(key)] number: String, cents: i64 }
/// # struct Sums;
/// # impl RowProjection for Sums {
/// #     type Event = AccountEvent;
/// #     type Row = Sum;
/// #     const NAME: &'static str = "account_sum";
/// #     fn key(&self, event: &Envelope<AccountEvent>) -> Result<Option<String>> {
/// #         Ok(Some(event.aggregate_id_str().to_owned()))
/// #     }
/// #     fn apply(&self, row: &mut Option<Sum>, event: &Envelope<AccountEvent>) -> Result<()> {
/// #         let number = event.aggregate_id_str().to_owned();
/// #         let AccountEvent::Deposited { cents } = event.payload();
/// #         row.get_or_insert(Sum { number, cents: 0 }).cents += cents;
/// #         Ok(())
/// #     }
/// # }
/// projection(Sums)
///     .given("A1", [AccountEvent::Deposited { cents: 2 }, AccountEvent::Deposited { cents: 3 }])
///     .then_row("A1".to_owned(), |row| assert_eq!(row.cents, 5))
///     .then_rows([Sum { number: "A1".to_owned(), cents: 5 }])
///     .then_no_row("A2".to_owned());
/// ```
pub fn projection<P: RowProjection>(projection: P) -> ProjectionScenario<P> {
    ProjectionScenario {
        projection,
        recorder: Recorder::new(),
        rows: HashMap::new(),
    }
}

/// A projection in a test. No store is needed. Its methods panic where something is not as expected,
/// or the projection fails.
pub struct ProjectionScenario<P: RowProjection> {
    projection: P,
    recorder: Recorder,
    rows: HashMap<RowAddress, Option<P::Row>>,
}

impl<P: RowProjection> ProjectionScenario<P> {
    /// What follows happens at this time.
    #[must_use]
    pub fn at(mut self, time: DateTime<Utc>) -> Self {
        self.recorder.now = time;
        self
    }

    /// What follows happens to aggregates, and is looked for in rows, of this tenant.
    #[must_use]
    pub fn of_tenant(mut self, tenant: TenantId) -> Self {
        self.recorder.tenant = Some(tenant);
        self
    }

    /// Who does what follows; nobody unless told.
    #[must_use]
    pub fn by(mut self, actor: &str) -> Self {
        self.recorder.actor = Some(actor.to_owned());
        self
    }

    /// These events happen to an aggregate.
    #[must_use]
    #[track_caller]
    pub fn given<E: DomainEvent>(
        mut self,
        aggregate_id: &str,
        events: impl IntoIterator<Item = E>,
    ) -> Self {
        for event in events {
            let event = self.recorder.event(aggregate_id, &event);
            if let Err(error) = self.apply(&event) {
                panic!("the projection failed: {error}");
            }
        }
        self
    }

    /// Expects these rows and no others, of all tenants, in whatever order.
    ///
    /// # Panics
    ///
    /// Where there are others, with what differs.
    #[track_caller]
    pub fn then_rows(self, rows: impl IntoIterator<Item = P::Row>) -> Self
    where
        P::Row: PartialEq + Debug,
    {
        let expected: Vec<P::Row> = rows.into_iter().collect();
        let expected = sorted(expected.iter());
        let found = sorted(self.rows.values().flatten());
        assert!(
            expected == found,
            "the rows differ (- expected, + there):\n{}",
            diff(&expected, &found)
        );
        self
    }

    /// Hands the row with a key to `check`.
    ///
    /// # Panics
    ///
    /// Where there is none; and where `check` does.
    #[track_caller]
    pub fn then_row(self, key: <P::Row as ReadModel>::Key, check: impl FnOnce(&P::Row)) -> Self {
        let address = self.address(&key);
        match self.rows.get(&address) {
            Some(Some(row)) => check(row),
            _ => panic!("there is no row at {address:?}"),
        }
        self
    }

    /// Expects that there is no row with a key.
    ///
    /// # Panics
    ///
    /// Where there is one.
    #[track_caller]
    pub fn then_no_row(self, key: <P::Row as ReadModel>::Key) -> Self {
        let address = self.address(&key);
        let row = self.rows.get(&address);
        assert!(
            row.is_none_or(Option::is_none),
            "there is a row at {address:?}"
        );
        self
    }

    #[track_caller]
    fn address(&self, key: &<P::Row as ReadModel>::Key) -> RowAddress {
        RowAddress::of::<P::Row>(self.recorder.tenant.as_ref(), key)
            .unwrap_or_else(|error| panic!("no row has such a key: {error}"))
    }

    fn apply(&mut self, raw: &Envelope<RawPayload>) -> Result<()> {
        if !EventFilter::of_rows::<P>().wants(raw) {
            return Ok(());
        }
        let Some(event) = P::Event::decode(raw)?.map(|event| raw.with_payload(event)) else {
            return Ok(());
        };
        let Some(key) = self.projection.key(&event)? else {
            return Ok(());
        };
        let address = RowAddress::of::<P::Row>(event.tenant(), &key)?;
        let row = self.rows.entry(address).or_default();
        self.projection.apply(row, &event)
    }
}

impl<P: RowProjection> Debug for ProjectionScenario<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionScenario")
            .field("name", &P::NAME)
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}

/// Rows in an order of their own: they have none in common.
fn sorted<'r, R: Debug + 'r>(rows: impl Iterator<Item = &'r R>) -> Vec<&'r R> {
    let mut rows: Vec<&R> = rows.collect();
    rows.sort_by_cached_key(|row| format!("{row:?}"));
    rows
}
