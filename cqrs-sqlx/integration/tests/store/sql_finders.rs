//! Finders with SQL of their own: what is bound, what is read, whose rows, and what `verify_sql` says.

use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use cqrs_core::conformance::fixtures::Tour;
use cqrs_core::{
    Aggregate, DomainEvent, Entity, Error, Id, ReadModelRepository, Repository, RequestContext,
    Result, Root, SqlQueries, SqlReads, SqlRow, Store, StoreErrorKind, UnitOfWork, ValueObject,
    repository,
};
use cqrs_integration::domain::{self, Parcel, ParcelView, ParcelViews};
use cqrs_integration::stores::tenant;
use cqrs_sqlx::{SchemaMismatch, SqlStore, StoreOptions};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use cqrs_integration::each::{Fresh, Kind, kind, on_each, poll_up_to};

on_each!(
    rows_of_every_kind_are_read,
    every_kind_of_parameter_is_bound,
    the_tenant_is_bound_and_checked,
    statements_run_in_the_unit_of_work,
    one_row_is_expected,
    read_models_run_sql,
    what_fits_is_verified,
    what_does_not_fit_is_named,
    what_does_not_fit_is_refused_when_it_runs,
);

#[derive(Debug, PartialEq, SqlRow)]
struct Weight {
    #[mapper(column = "name")]
    label: String,
    grams: Option<i64>,
    #[mapper(flatten)]
    times: Option<Times>,
}

#[derive(Debug, PartialEq, ValueObject)]
struct Times {
    n: i64,
}

#[repository]
trait ParcelReports: Repository<Parcel> + SqlQueries {
    #[sql(
        "SELECT 2 AS times_n, grams, 'more' AS more, label AS name FROM parcel -- :not_a_name
         WHERE tenant_id = :tenant AND grams::int8 >= :least ORDER BY label",
        sqlite = "SELECT 2 AS times_n, label AS name, grams FROM parcel
                  WHERE grams >= :least AND tenant_id = :tenant ORDER BY label"
    )]
    async fn weights(&mut self, least: i64) -> Result<Vec<Weight>>;

    #[sql("SELECT p.*, 1 AS one FROM parcel AS p WHERE tenant_id = :tenant AND label = :label")]
    async fn aggregate(&mut self, label: &str) -> Result<Option<Parcel>>;

    #[sql("SELECT label, grams, id FROM parcel WHERE tenant_id = :tenant ORDER BY label")]
    async fn tuples(&mut self) -> Result<Vec<(String, i64, Id<Parcel>)>>;

    #[sql("SELECT count(*) FROM parcel WHERE tenant_id = :tenant")]
    async fn number(&mut self) -> Result<u64>;

    #[sql("SELECT label FROM parcel WHERE tenant_id = :tenant AND grams > :grams")]
    async fn label_above(&mut self, grams: i64) -> Result<Option<String>>;

    #[sql("SELECT label FROM parcel WHERE tenant_id = :tenant AND grams > :grams")]
    async fn get_label_above(&mut self, grams: i64) -> Result<String>;

    #[sql(
        postgres = "SELECT label FROM parcel WHERE tenant_id = :tenant AND label = ANY(:labels) ORDER BY 1",
        sqlite = "SELECT label FROM parcel WHERE tenant_id = :tenant
                  AND label IN (SELECT value FROM json_each(:labels)) ORDER BY 1"
    )]
    async fn among(&mut self, labels: &[String]) -> Result<Vec<String>>;

    #[sql(
        "SELECT tenant_id, count(*) FROM parcel GROUP BY tenant_id ORDER BY 1",
        all_tenants
    )]
    async fn by_tenant(&mut self) -> Result<Vec<(String, i64)>>;

    #[sql("SELECT * FROM parcel WHERE tenant_id = :tenant OR label = 'theirs'")]
    async fn leaking(&mut self) -> Result<Vec<Parcel>>;

    #[sql(
        "SELECT * FROM parcel WHERE tenant_id = :tenant AND NOT delivered ORDER BY label LIMIT 1 FOR UPDATE",
        sqlite = "SELECT * FROM parcel WHERE tenant_id = :tenant AND NOT delivered ORDER BY label LIMIT 1",
        lock
    )]
    async fn lock_open(&mut self) -> Result<Option<Parcel>>;
}

#[repository]
trait ViewReports: ReadModelRepository<ParcelView> + SqlReads {
    #[sql("SELECT * FROM parcel_view WHERE tenant_id = :tenant AND grams >= :least ORDER BY grams")]
    async fn heavier(&self, least: i64) -> Result<Vec<ParcelView>>;

    #[sql("SELECT coalesce(max(grams), 0) FROM parcel_view WHERE tenant_id = :tenant")]
    async fn heaviest(&self) -> Result<i64>;
}

async fn saved<K: Kind>() -> (Fresh<K>, SqlStore<K>) {
    let (fresh, store) = Fresh::<K>::with_store().await;
    for (name, labels) in [("north", ["a", "b", "c"]), ("south", ["a", "theirs", "z"])] {
        let mut uow = store.unit_of_work(&tenant(name));
        for (grams, label) in (1..).zip(labels) {
            let mut parcel = Parcel::register(label);
            parcel.weigh(grams);
            uow.save(parcel).unwrap();
        }
        let _ = uow.commit().await.unwrap();
    }
    (fresh, store)
}

fn usage(error: &Error) -> String {
    assert_eq!(kind(error), &StoreErrorKind::Usage, "{error}");
    error.to_string()
}

/// Structs by name, tuples and single columns by place, aggregates with their version.
async fn rows_of_every_kind_are_read<K: Kind>() {
    let (_fresh, store) = saved::<K>().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    let mut parcels = uow.repository::<Parcel>();
    let weights = parcels.weights(2).await.unwrap();
    let weight = |label: &str, grams| Weight {
        label: label.to_owned(),
        grams: Some(grams),
        times: Some(Times { n: 2 }),
    };
    assert_eq!(weights, [weight("b", 2), weight("c", 3)]);
    let tuples = parcels.tuples().await.unwrap();
    assert_eq!((tuples[0].0.as_str(), tuples[0].1), ("a", 1));
    assert_eq!(parcels.number().await.unwrap(), 3);
    let mut parcel = parcels.aggregate("b").await.unwrap().unwrap();
    assert_eq!(domain::id(&parcel), tuples[1].2);
    assert_eq!((parcel.grams(), domain::version(&parcel)), (2, 2));
    parcel.weigh(10);
    parcels.save(parcel).unwrap();
    let _ = uow.commit().await.unwrap();
    let mut uow = store.unit_of_work(&tenant("north"));
    let parcel = uow.repository::<Parcel>().aggregate("b").await.unwrap();
    assert_eq!(parcel.unwrap().grams(), 12);
}

/// One tenant is bound, several must be asked for, and rows of another go no further.
async fn the_tenant_is_bound_and_checked<K: Kind>() {
    let (_fresh, store) = saved::<K>().await;
    let mut uow = store.unit_of_work(&tenant("south"));
    let mut parcels = uow.repository::<Parcel>();
    let labels = parcels.tuples().await.unwrap();
    assert_eq!(
        labels.iter().map(|row| row.0.as_str()).collect::<String>(),
        "atheirsz"
    );
    assert!(usage(&parcels.by_tenant().await.unwrap_err()).contains("ParcelReports::by_tenant"));
    assert_eq!(parcels.leaking().await.unwrap().len(), 3);
    let mut uow = store.unit_of_work(&tenant("north"));
    let error = uow.repository::<Parcel>().leaking().await.unwrap_err();
    assert!(usage(&error).contains("a row of another tenant"));
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut parcels = uow.repository::<Parcel>();
    let found = parcels.by_tenant().await.unwrap();
    assert_eq!(found, [("north".to_owned(), 3), ("south".to_owned(), 3)]);
    assert!(usage(&parcels.tuples().await.unwrap_err()).contains("name it"));
    store.close();
    let context = RequestContext::system();
    let mut uow = store.unit_of_work(&context);
    let refused = poll_up_to(0, uow.repository::<Parcel>().number()).await;
    usage(&refused.expect("nothing is awaited").unwrap_err());
}

/// They see what is staged, not what was removed, and lock for as long as the unit of work lasts.
async fn statements_run_in_the_unit_of_work<K: Kind>() {
    let (_fresh, store) = saved::<K>().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    let gone = uow.repository::<Parcel>().aggregate("a").await.unwrap();
    uow.remove(gone.unwrap()).unwrap();
    uow.save(Parcel::register("staged")).unwrap();
    let mut parcels = uow.repository::<Parcel>();
    assert!(parcels.aggregate("a").await.unwrap().is_none());
    assert!(parcels.aggregate("staged").await.unwrap().is_some());
    let locked = parcels.lock_open().await.unwrap();
    assert!(locked.is_none(), "the first row is that of the removed one");
    let mut other = store.unit_of_work(&tenant("north"));
    if K::either(true, false) {
        assert_eq!(other.repository::<Parcel>().number().await.unwrap(), 3);
    }
    uow.rollback().await;
    let mut parcels = other.repository::<Parcel>();
    let mut parcel = parcels.lock_open().await.unwrap().unwrap();
    parcel.deliver();
    parcels.save(parcel).unwrap();
    let _ = other.commit().await.unwrap();
    let mut reading = store.read_only(&tenant("north"));
    let mut parcels = reading.repository::<Parcel>();
    let refused = poll_up_to(0, parcels.lock_open()).await;
    let refused = refused.expect("nothing is awaited").unwrap_err();
    assert!(usage(&refused).contains("would not last"));
    assert_eq!(parcels.number().await.unwrap(), 3);
}

async fn one_row_is_expected<K: Kind>() {
    let (_fresh, store) = saved::<K>().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    let mut parcels = uow.repository::<Parcel>();
    assert_eq!(parcels.label_above(2).await.unwrap().as_deref(), Some("c"));
    assert_eq!(parcels.label_above(3).await.unwrap(), None);
    assert_eq!(parcels.get_label_above(2).await.unwrap(), "c");
    assert!(parcels.get_label_above(3).await.unwrap_err().is_not_found());
    for error in [
        parcels.label_above(1).await.unwrap_err(),
        parcels.get_label_above(1).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotUnique { .. }), "{error:?}");
    }
}

async fn read_models_run_sql<K: Kind>() {
    let (_fresh, store) = saved::<K>().await;
    let projector = store.projector().rows(ParcelViews);
    let _ = projector.run_until_idle().await.unwrap();
    let models = store.read_models(&tenant("north"));
    let found = models.heavier(2).await.unwrap();
    assert_eq!(
        found.iter().map(|view| view.grams).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(models.heaviest().await.unwrap(), 3);
    let none = store.read_models(&tenant("nowhere"));
    assert_eq!(none.heaviest().await.unwrap(), 0);
    let system = store.read_models(&RequestContext::system());
    usage(&system.heaviest().await.unwrap_err());
}

// Parameters.

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "nothing")]
enum NothingEvent {
    Happened,
}

/// An aggregate without a tenant, to hold finders.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "nothing", event = NothingEvent)]
struct Nothing {
    #[aggregate(id)]
    id: i64,
    #[aggregate(root)]
    root: Root<NothingEvent>,
    details: serde_json::Value,
}

type Echo = (
    Option<bool>,
    i16,
    Option<i32>,
    i64,
    f64,
    String,
    Vec<u8>,
    Option<String>,
);

type Others = (Uuid, DateTime<Utc>, NaiveDate, serde_json::Value, f32);

#[repository]
trait Echoes: Repository<Nothing> + SqlQueries {
    #[sql(
        postgres = "SELECT :flag, :small, :medium, :large, :double, :text, :bytes, :none",
        sqlite = "SELECT :flag, :small, :medium, :large, :double, :text, :bytes, :none",
        without_tenant
    )]
    #[expect(clippy::too_many_arguments, reason = "one of each kind")]
    async fn echo(
        &mut self,
        flag: Option<bool>,
        small: i16,
        medium: &Option<i32>,
        large: i64,
        double: f64,
        text: &str,
        bytes: &[u8],
        none: Option<String>,
    ) -> Result<Echo>;

    #[sql(
        "SELECT :id, :at, :day, :details, :single WHERE :id IN (:id)",
        without_tenant
    )]
    async fn others(
        &mut self,
        id: Uuid,
        at: &DateTime<Utc>,
        day: NaiveDate,
        details: &serde_json::Value,
        single: f32,
    ) -> Result<Others>;

    #[sql(
        postgres = "SELECT x FROM unnest(:numbers) AS x ORDER BY x DESC",
        sqlite = "SELECT value FROM json_each(:numbers) ORDER BY value DESC",
        without_tenant
    )]
    async fn numbers(&mut self, numbers: Vec<i64>) -> Result<Vec<i64>>;

    #[sql(
        "SELECT ':text', \":text\" FROM (SELECT 1 AS \":text\") AS q WHERE :text <> ''",
        without_tenant
    )]
    async fn quoted(&mut self, text: String) -> Result<(String, i32)>;

    #[sql(elsewhere = "SELECT 1", without_tenant)]
    async fn elsewhere(&mut self) -> Result<i32>;

    #[sql("SELECT CAST(NULL AS integer)", without_tenant)]
    async fn null(&mut self) -> Result<i32>;
}

async fn every_kind_of_parameter_is_bound<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    store.create_tables(&[Nothing::table()]).await.unwrap();
    let mut uow = store.unit_of_work(&RequestContext::system());
    let mut echoes = uow.repository::<Nothing>();
    let echo = echoes
        .echo(
            Some(true),
            -3,
            &None,
            i64::MIN,
            1e-300,
            "é'😀",
            &[0, 255],
            None,
        )
        .await
        .unwrap();
    let text = "é'😀".to_owned();
    let expected = (
        Some(true),
        -3,
        None,
        i64::MIN,
        1e-300,
        text,
        vec![0, 255],
        None,
    );
    assert_eq!(echo, expected);
    let at = Utc.timestamp_opt(1_700_000_000, 123_456_000).unwrap();
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let details = serde_json::json!({"a": [1, null, "é"]});
    let id = Uuid::now_v7();
    let others = echoes.others(id, &at, day, &details, 0.1).await.unwrap();
    assert_eq!(others, (id, at, day, details, 0.1));
    let numbers = vec![3, i64::MAX, -1];
    assert_eq!(echoes.numbers(numbers).await.unwrap(), [i64::MAX, 3, -1]);
    assert_eq!(echoes.numbers(Vec::new()).await.unwrap(), [0_i64; 0]);
    let quoted = echoes.quoted("x".to_owned()).await.unwrap();
    assert_eq!(quoted, (":text".to_owned(), 1));
    let error = echoes.quoted("a\0".to_owned()).await.unwrap_err();
    match error {
        Error::Mapping(error) => {
            let place = (error.table.as_str(), error.column.as_str());
            assert_eq!(place, ("Echoes::quoted", ":text"));
        }
        other => panic!("{other:?}"),
    }
    let error = echoes.null().await.unwrap_err();
    assert!(error.to_string().contains("Echoes::null"), "{error}");
    let error = echoes.elsewhere().await.unwrap_err();
    assert!(usage(&error).contains("has no SQL for"), "{error}");
}

// Verifying.

async fn what_fits_is_verified<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    store
        .verify_sql(&[PARCEL_REPORTS_SQL, VIEW_REPORTS_SQL])
        .await
        .unwrap();
    store.verify_sql(&[]).await.unwrap();
}

#[repository]
trait Misfits: Repository<Parcel> + SqlQueries {
    #[sql("SELECT label, grams FROM parcel WHERE tenant_id = :tenant")]
    async fn missing(&mut self) -> Result<Vec<Weight>>;

    #[sql("SELECT grams, label FROM parcel WHERE tenant_id = :tenant")]
    async fn swapped(&mut self) -> Result<Vec<(String, i64)>>;

    #[sql("SELECT label FROM parcel WHERE tenant_id = :tenant")]
    async fn fewer(&mut self) -> Result<Vec<(String, i64)>>;

    #[sql("SELECT label FROM nowhere WHERE tenant_id = :tenant")]
    async fn nowhere(&mut self) -> Result<Vec<String>>;

    #[sql("SELECT label FROM parcel WHERE tenant_id = :tenant AND weight > 3")]
    async fn unknown(&mut self) -> Result<Vec<String>>;

    #[sql("SELECT label FROM parcel WHERE tenant_id = :tenant AND grams = :grams AND id = :id")]
    async fn parameters(&mut self, grams: &str, id: Id<Parcel>) -> Result<Vec<String>>;

    #[sql(elsewhere = "SELECT 1 WHERE :tenant = ''")]
    async fn elsewhere(&mut self) -> Result<Vec<i32>>;

    #[sql("SELECT label, label AS label, grams FROM parcel WHERE tenant_id = :tenant")]
    async fn twice(&mut self) -> Result<Vec<Labels>>;

    #[sql("SELECT * FROM parcel WHERE tenant_id = :tenant")]
    async fn children(&mut self) -> Result<Vec<Tour>>;
}

#[derive(Debug, SqlRow)]
struct Labels {
    #[expect(dead_code, reason = "is not read")]
    label: String,
}

async fn what_does_not_fit_is_named<K: Kind>() {
    let (_fresh, store) = Fresh::<K>::with_store().await;
    let error = store.verify_sql(&[MISFITS_SQL]).await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Schema);
    let source = std::error::Error::source(&error).unwrap();
    let found = source
        .downcast_ref::<SchemaMismatch>()
        .unwrap()
        .differences();
    let name = K::either("postgres", "sqlite");
    let mut expected = vec![
        "Misfits::missing: column name: expected text, found no such column".to_owned(),
        "Misfits::missing: column times_n: expected int64, found no such column".to_owned(),
        format!(
            "Misfits::swapped: column 1: expected text, found {}",
            K::either("int8", "integer")
        ),
        "Misfits::swapped: column 2: expected int64, found text".to_owned(),
        "Misfits::fewer: expected 2 columns, found 1".to_owned(),
        "nowhere".to_owned(),
        "weight".to_owned(),
        "Misfits::parameters: parameter grams: expected int8, found text".to_owned(),
        format!("Misfits::elsewhere: Misfits::elsewhere has no SQL for {name}"),
        "Misfits::twice: column label: expected one, found several".to_owned(),
        "Misfits::children: the rows of conformance_".to_owned(),
    ];
    // It knows no types of parameters.
    if K::either(false, true) {
        expected.remove(7);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.contains(expected.as_str()), "{found}, not {expected}");
    }
    // The connections are in good order.
    let mut uow = store.unit_of_work(&tenant("north"));
    assert_eq!(uow.repository::<Parcel>().number().await.unwrap(), 0);
}

/// Who does not verify is told by the first row, and not by a wrong value.
async fn what_does_not_fit_is_refused_when_it_runs<K: Kind>() {
    let (fresh, store) = Fresh::<K>::with(StoreOptions::default().max_connections(1)).await;
    let mut uow = store.unit_of_work(&tenant("north"));
    uow.save(Parcel::register("a")).unwrap();
    let _ = uow.commit().await.unwrap();
    let before = fresh.state().await;
    let mut uow = store.unit_of_work(&tenant("north"));
    let mut misfits = uow.repository::<Parcel>();
    let error = misfits.missing().await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Schema);
    assert!(error.to_string().contains("column name"), "{error}");
    let error = misfits.swapped().await.unwrap_err();
    assert!(error.to_string().contains("column 1"), "{error}");
    let error = misfits.children().await.unwrap_err();
    assert_eq!(kind(&error), &StoreErrorKind::Schema);
    assert!(error.to_string().contains("select the ids"), "{error}");
    let error = misfits.nowhere().await.unwrap_err();
    assert!(matches!(error, Error::Store(_)), "{error:?}");
    assert_eq!(misfits.number().await.unwrap(), 1);
    assert_eq!(fresh.state().await, before);
}
