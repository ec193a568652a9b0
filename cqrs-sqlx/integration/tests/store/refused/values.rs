//! Values that no store could keep.

use std::time::Duration;

use cqrs_core::conformance::fixtures::Locker;
use cqrs_core::mapping::{ColumnError, MappingError};
use cqrs_core::{
    Entity, Envelope, Error, Id, Position, Result, RowProjection, Store, TraceContext, UnitOfWork,
};
use cqrs_integration::domain::{Parcel, ParcelEvent, ParcelId, ParcelView, ParcelViews};
use cqrs_integration::stores;
use cqrs_sqlx::{SubscriptionFailure, SubscriptionState};

use super::{logged, receipted};
use cqrs_integration::each::{Fresh, Kind, on_each};

on_each!(
    an_id_has_1_to_255_bytes,
    metadata_has_no_nul,
    a_row_with_another_key_than_its_own_halts,
);

/// The table, the column and the reason of a value that cannot be stored.
#[track_caller]
fn invalid(error: &Error) -> (&str, &str, &str) {
    match error {
        Error::Mapping(MappingError {
            table,
            column,
            reason: ColumnError::Invalid(reason),
        }) => (table, column, reason),
        other => panic!("not an invalid value: {other:?}"),
    }
}

async fn an_id_has_1_to_255_bytes<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Locker::table()]).await.unwrap();
    let context = stores::tenant("north");
    // Bytes, not characters.
    for id in ["", &"i".repeat(256), &"\u{1F4E6}".repeat(64)] {
        let mut uow = store.unit_of_work(&context);
        let error = uow.save(Locker::new(id)).unwrap_err();
        let (table, column, reason) = invalid(&error);
        assert_eq!((table, column), ("conformance_locker", "id"));
        let says = format!("1 to 255 bytes of text, not {}", id.len());
        assert!(reason.contains(&says), "{reason}");
        assert!(uow.commit().await.unwrap().events().is_empty());
    }
    assert_eq!(fresh.dump("conformance_locker").await, Vec::<String>::new());
    assert_eq!(logged(&fresh).await, Vec::<String>::new());

    let longest = "\u{1F4E6}".repeat(63) + "abc";
    assert_eq!(longest.len(), 255);
    let mut uow = store.unit_of_work(&context);
    for id in ["i", &longest] {
        uow.save(Locker::new(id)).unwrap();
    }
    let receipt = uow.commit().await.unwrap();
    assert_eq!(logged(&fresh).await, receipted(&receipt));
    let mut uow = store.unit_of_work(&context);
    let mut longer: Locker = uow.get(longest.clone()).await.unwrap();
    assert_eq!(longer.id, longest);
    // One that was loaded is checked as well.
    longer.id.push('d');
    longer.assign("ann");
    let error = uow.remove(longer.clone()).unwrap_err();
    assert_eq!(invalid(&error).1, "id");
    assert_eq!(invalid(&uow.save(longer).unwrap_err()).1, "id");
}

async fn metadata_has_no_nul<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let trace = |traceparent: &str, tracestate: Option<&str>| TraceContext {
        traceparent: traceparent.to_owned(),
        tracestate: tracestate.map(str::to_owned),
    };
    let context = || stores::tenant("north");
    let cases = [
        ("actor", context().with_actor("a\0b")),
        ("traceparent", context().with_trace(trace("a\0b", None))),
        ("tracestate", context().with_trace(trace("a", Some("\0")))),
    ];
    for (named, context) in cases {
        let mut uow = store.unit_of_work(&context);
        let error = uow.save(Parcel::register("a")).unwrap_err();
        let (table, column, reason) = invalid(&error);
        assert_eq!((table, column), ("cqrs_event", named));
        assert!(reason.contains("NUL"), "{reason}");
        assert!(uow.commit().await.unwrap().events().is_empty());
    }
    assert_eq!(fresh.state().await, (Vec::new(), Vec::new()));

    let context = context()
        .with_actor("")
        .with_trace(trace("\u{1}", Some("\u{7f}")));
    let mut uow = store.unit_of_work(&context);
    uow.save(Parcel::register("a")).unwrap();
    assert_eq!(uow.commit().await.unwrap().events().len(), 1);
    let log = store.events(&context, Position::START, 9).await.unwrap();
    assert_eq!(log[0].metadata(), context.metadata());
}

/// Makes a row with a key of its own for the second event of a parcel.
struct Astray;

impl RowProjection for Astray {
    type Event = ParcelEvent;
    type Row = ParcelView;

    const NAME: &'static str = "astray";

    fn key(&self, event: &Envelope<ParcelEvent>) -> Result<Option<ParcelId>> {
        ParcelViews.key(event)
    }

    fn apply(&self, row: &mut Option<ParcelView>, event: &Envelope<ParcelEvent>) -> Result<()> {
        ParcelViews.apply(row, event)?;
        if let (Some(row), 2..) = (row, event.aggregate_version()) {
            row.id = Id::new();
        }
        Ok(())
    }
}

async fn a_row_with_another_key_than_its_own_halts<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with_store().await;
    let context = stores::tenant("north");
    let commit = async |weighings: usize| {
        let mut parcel = Parcel::register("a");
        (0..weighings).for_each(|_| parcel.weigh(1));
        let mut uow = store.unit_of_work(&context);
        uow.save(parcel).unwrap();
        uow.commit().await.unwrap()
    };
    let _ = commit(0).await;
    let projector = || {
        let projector = store.projector().rows(Astray);
        projector.retry_delays([Duration::ZERO]).page_size(2)
    };
    assert_eq!(projector().run_until_idle().await.unwrap(), 1);
    assert_eq!(fresh.dump("parcel_view").await.len(), 1);

    // The row is made by the first event of the page, and goes astray with the second.
    let _ = commit(1).await;
    let Error::Other(error) = projector().run_until_idle().await.unwrap_err() else {
        panic!("not a subscription's failure");
    };
    let failure: SubscriptionFailure = *error.downcast().unwrap();
    assert_eq!((failure.name.as_str(), failure.attempts), ("astray", 2));
    assert!(failure.error.contains("another key"), "{}", failure.error);
    assert!(failure.error.contains("\"astray\""), "{}", failure.error);
    // The first event, tried alone, is applied; the row of the second is nowhere.
    assert_eq!(fresh.dump("parcel_view").await.len(), 2);
    let statuses = store.subscriptions().await.unwrap();
    assert_eq!(statuses[0].position.0, 2);
    assert_eq!(statuses[0].state, SubscriptionState::Halted(failure));
}
