//! Given events, then rows.

use std::fmt::{self, Debug, Display};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use chrono::{DateTime, Utc};

use super::diff::diff;
use super::recorder::Recorder;
use super::unasked::Unasked;
use crate::context::{RequestContext, TenantId};
use crate::envelope::{Envelope, RawPayload};
use crate::error::Error;
use crate::event::DomainEvent;
use crate::memory::{InMemoryStore, InMemoryTransaction};
use crate::projection::{Projection, RowAddress, RowProjection, Rows};
use crate::read_model::{ReadModel, ReadModels};
use crate::specification::Query;
use crate::store::Store;
use crate::subscription::Subscription;

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
pub fn projection<P: RowProjection>(projection: P) -> ProjectionScenario<Rows<P>> {
    ProjectionScenario::new(Rows(projection))
}

/// A projection in a test. No store is needed. Its methods panic where something is not as expected,
/// or the projection fails and that is not [expected](Self::then_error_if). It panics also when it is
/// dropped after a [`when`](Self::when) of which nothing is expected: a test that forgets to look does
/// not pass.
///
/// Events may be of any aggregate: a projection of [several](trait@crate::EventSet) is given those of
/// each by their own type.
///
/// A [`RowProjection`] begins with [`projection`]. Any other, which may write several read models,
/// begins with [`new`](Self::new), and its rows are looked for by their type:
///
/// ```
/// use cqrs_core::testing::ProjectionScenario;
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "account")]
/// # enum AccountEvent { Deposited { cents: i64 } }
/// # #[derive(Debug, Clone, PartialEq, ReadModel)]
/// # #[read_model(table = "deposit")]
/// # struct Deposit { #[read_model(key)] number: i64, cents: i64 }
/// # #[derive(Debug, Clone, PartialEq, ReadModel)]
/// # #[read_model(table = "large_deposit")]
/// # struct LargeDeposit { #[read_model(key)] number: i64 }
/// # struct Deposits;
/// # impl<T: ProjectionTransaction> Projection<T> for Deposits {
/// #     type Event = AccountEvent;
/// #     fn name(&self) -> &str { "deposits" }
/// #     async fn apply(&self, page: &[Envelope<AccountEvent>], transaction: &mut T) -> Result<()> {
/// #         let (mut all, mut large) = (Vec::new(), Vec::new());
/// #         for event in page {
/// #             let number = event.position().0;
/// #             let AccountEvent::Deposited { cents } = *event.payload();
/// #             all.push(Owned { tenant: None, row: Deposit { number, cents } });
/// #             if cents >= 100 {
/// #                 large.push(Owned { tenant: None, row: LargeDeposit { number } });
/// #             }
/// #         }
/// #         transaction.upsert(&all).await?;
/// #         transaction.upsert(&large).await
/// #     }
/// # }
/// let deposits = [AccountEvent::Deposited { cents: 2 }, AccountEvent::Deposited { cents: 300 }];
/// ProjectionScenario::new(Deposits)
///     .given("A1", deposits)
///     .then_rows_of([Deposit { number: 1, cents: 2 }, Deposit { number: 2, cents: 300 }])
///     .then_row_of::<LargeDeposit>(2, |_| {})
///     .then_no_row_of::<LargeDeposit>(1);
/// ```
pub struct ProjectionScenario<P> {
    subscription: Subscription<InMemoryTransaction>,
    recorder: Recorder,
    store: InMemoryStore,
    /// Why the last event failed, until it is expected.
    failure: Option<Error>,
    unasked: Unasked,
    projection: PhantomData<P>,
}

impl<P: Projection<InMemoryTransaction>> ProjectionScenario<P> {
    /// A projection that has seen nothing yet, at the beginning of 1970.
    #[must_use]
    pub fn new(projection: P) -> Self {
        Self {
            subscription: Subscription::new(projection),
            recorder: Recorder::new(),
            store: InMemoryStore::new(),
            failure: None,
            unasked: Unasked::default(),
            projection: PhantomData,
        }
    }

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

    /// These events happen to an aggregate. They are one page.
    #[must_use]
    #[track_caller]
    pub fn given<E: DomainEvent>(
        mut self,
        aggregate_id: impl Display,
        events: impl IntoIterator<Item = E>,
    ) -> Self {
        let id = aggregate_id.to_string();
        let events = events.into_iter();
        let page: Vec<_> = events
            .map(|event| self.recorder.event(&id, &event))
            .collect();
        self.apply(&page);
        self.check_success();
        self
    }

    /// An event happens to an aggregate, which the projection may [refuse](Self::then_error_if).
    #[must_use]
    #[track_caller]
    pub fn when<E: DomainEvent>(mut self, aggregate_id: impl Display, event: E) -> Self {
        let event = self.recorder.event(&aggregate_id.to_string(), &event);
        self.apply(std::slice::from_ref(&event));
        self.unasked.step();
        self
    }

    #[track_caller]
    fn apply(&mut self, page: &[Envelope<RawPayload>]) {
        self.check_success();
        self.failure = at_once(self.store.apply(&self.subscription, page)).err();
    }

    #[track_caller]
    fn check_success(&self) {
        if let Some(error) = &self.failure {
            panic!("the projection failed: {error}");
        }
    }

    /// Expects that the projection failed at the last event, with an error of which `check` asserts
    /// what it likes. The event has changed nothing then, as in a store.
    ///
    /// # Panics
    ///
    /// Where it did not fail, and where `check` does.
    #[track_caller]
    pub fn then_error_if(mut self, check: impl FnOnce(&Error)) -> Self {
        match self.failure.take() {
            Some(error) => check(&error),
            None => panic!(
                "expected that {:?} fails, but it did not",
                self.subscription.name()
            ),
        }
        self.unasked.asked();
        self
    }

    /// Expects these rows of one read model and no others, of all tenants, in whatever order.
    ///
    /// # Panics
    ///
    /// Where there are others, with what differs.
    #[track_caller]
    pub fn then_rows_of<R: ReadModel + PartialEq + Debug>(
        mut self,
        rows: impl IntoIterator<Item = R>,
    ) -> Self {
        self.check_success();
        let read_models = self.store.read_models(&RequestContext::system());
        let found = at_once(read_models.query(Query::<R>::all()));
        let found = sorted(found.unwrap_or_else(|error| panic!("rows cannot be read: {error}")));
        let expected = sorted(rows.into_iter().collect());
        assert!(
            expected == found,
            "the rows differ (- expected, + there):\n{}",
            diff(&expected, &found)
        );
        self.unasked.asked();
        self
    }

    /// Hands the row of a read model with a key to `check`.
    ///
    /// # Panics
    ///
    /// Where there is none; and where `check` does.
    #[track_caller]
    pub fn then_row_of<R: ReadModel>(mut self, key: R::Key, check: impl FnOnce(&R)) -> Self {
        let (address, row) = self.find::<R>(&key);
        match row {
            Some(row) => check(&row),
            None => panic!("there is no row at {address:?}"),
        }
        self.unasked.asked();
        self
    }

    /// Expects that there is no row of a read model with a key.
    ///
    /// # Panics
    ///
    /// Where there is one.
    #[track_caller]
    pub fn then_no_row_of<R: ReadModel>(mut self, key: R::Key) -> Self {
        let (address, row) = self.find::<R>(&key);
        assert!(row.is_none(), "there is a row at {address:?}");
        self.unasked.asked();
        self
    }

    #[track_caller]
    fn find<R: ReadModel>(&self, key: &R::Key) -> (RowAddress, Option<R>) {
        self.check_success();
        let tenant = self.recorder.tenant.as_ref();
        let address = RowAddress::of::<R>(tenant.filter(|_| R::table().is_tenant()), key)
            .unwrap_or_else(|error| panic!("no row has such a key: {error}"));
        let rows = at_once(self.store.rows_at::<R>(std::slice::from_ref(&address)));
        let mut rows = rows.unwrap_or_else(|error| panic!("the row cannot be read: {error}"));
        (address, rows.pop().map(|owned| owned.row))
    }
}

impl<P: RowProjection> ProjectionScenario<Rows<P>> {
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
        self.then_rows_of(rows)
    }

    /// Hands the row with a key to `check`.
    ///
    /// # Panics
    ///
    /// Where there is none; and where `check` does.
    #[track_caller]
    pub fn then_row(self, key: <P::Row as ReadModel>::Key, check: impl FnOnce(&P::Row)) -> Self {
        self.then_row_of(key, check)
    }

    /// Expects that there is no row with a key.
    ///
    /// # Panics
    ///
    /// Where there is one.
    #[track_caller]
    pub fn then_no_row(self, key: <P::Row as ReadModel>::Key) -> Self {
        self.then_no_row_of::<P::Row>(key)
    }
}

impl<P> Debug for ProjectionScenario<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionScenario")
            .field("name", &self.subscription.name())
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}

/// What a future comes to that waits for nothing: memory does not.
#[track_caller]
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the projection waits for something besides its transaction"),
    }
}

/// Rows in an order of their own: they have none in common.
fn sorted<R: Debug>(mut rows: Vec<R>) -> Vec<R> {
    rows.sort_by_cached_key(|row| format!("{row:?}"));
    rows
}
