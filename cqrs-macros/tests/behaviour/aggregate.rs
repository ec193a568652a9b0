use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use cqrs_core::mapping::{ColumnError, ColumnRole, ColumnType, Value};
use cqrs_core::{Aggregate, AggregateRoot, DomainEvent, Entity, Id, Root, TenantId, ValueObject};
use serde::{Deserialize, Serialize};

use crate::{columns_of, from_row, row_of, with_column};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
enum RoutePlanEvent {
    Created,
}

#[derive(Debug, Clone, PartialEq)]
struct Plate(String);

impl fmt::Display for Plate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Plate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() < 3 {
            return Err(format!("a plate of {} characters", text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct GeoPoint {
    x: f64,
    y: f64,
    #[mapper(flatten, prefix = "")]
    precision: Option<Precision>,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Precision {
    #[mapper(column = "precision_m")]
    metres: i32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Metres(f64);

/// Stores a length in whole millimetres.
mod millimetres {
    use super::Metres;

    #[expect(clippy::cast_possible_truncation, reason = "a test")]
    pub(super) fn to_column(length: &Metres) -> i64 {
        (length.0 * 1000.0) as i64
    }

    #[expect(clippy::cast_precision_loss, reason = "a test")]
    pub(super) fn from_column(column: i64) -> Result<Metres, String> {
        if column < 0 {
            return Err(format!("a length of {column} mm"));
        }
        Ok(Metres(column as f64 / 1000.0))
    }
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "route_plan", event = RoutePlanEvent, tenant = "org_id", soft_delete, audit)]
struct RoutePlan {
    priority: i32,
    #[aggregate(id)]
    id: Id<RoutePlan>,
    note: Option<String>,
    #[mapper(column = "kind")]
    r#type: i16,
    #[mapper(text)]
    plate: Plate,
    #[mapper(text, column = "spare")]
    spare_plate: Option<Plate>,
    #[mapper(json)]
    tags: BTreeMap<String, u8>,
    #[mapper(json)]
    extra: Option<Vec<String>>,
    #[mapper(flatten)]
    depot: GeoPoint,
    #[mapper(flatten, prefix = "end_")]
    target: Option<GeoPoint>,
    #[mapper(with = millimetres, as = i64)]
    length: Metres,
    #[mapper(with = millimetres, as = i64)]
    detour: Option<Metres>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    #[mapper(text)]
    address: IpAddr,
}

fn plan() -> RoutePlan {
    RoutePlan {
        priority: 7,
        id: Id::new(),
        note: None,
        r#type: 2,
        plate: Plate("G-123".into()),
        spare_plate: None,
        tags: BTreeMap::from([("a".into(), 1)]),
        extra: None,
        depot: GeoPoint {
            x: 1.5,
            y: -2.0,
            precision: Some(Precision { metres: 3 }),
        },
        target: None,
        length: Metres(1.25),
        detour: None,
        root: Root::for_tenant(TenantId::new("north").expect("a name")),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn full_plan() -> RoutePlan {
    RoutePlan {
        note: Some("n".into()),
        spare_plate: Some(Plate("W-1".into())),
        extra: Some(vec!["x".into()]),
        target: Some(GeoPoint {
            x: 0.0,
            y: 0.0,
            precision: None,
        }),
        detour: Some(Metres(0.5)),
        ..plan()
    }
}

/// A row as the database has it: with the stamps that the framework writes.
fn stored(plan: &RoutePlan) -> cqrs_core::mapping::ValueRow {
    let time = Value::Timestamp("2026-01-02T03:04:05Z".parse().expect("a time"));
    let row = row_of(plan).expect("a row");
    let row = with_column::<RoutePlan>(row, "version", Value::Int(4));
    let row = with_column::<RoutePlan>(row, "created_at", time.clone());
    with_column::<RoutePlan>(row, "updated_at", time)
}

#[test]
fn the_table_has_the_frameworks_columns_and_then_the_fields() {
    assert_eq!(RoutePlan::table().name(), "route_plan");
    assert_eq!(
        columns_of::<RoutePlan>(),
        [
            "version: int64",
            "org_id: text",
            "created_at: timestamp",
            "created_by: text?",
            "updated_at: timestamp",
            "updated_by: text?",
            "deleted_at: timestamp?",
            "deleted_by: text?",
            "priority: int32",
            "id: uuid",
            "note: text?",
            "kind: int16",
            "plate: text",
            "spare: text?",
            "tags: json",
            "extra: json?",
            "depot_x: float64",
            "depot_y: float64",
            "depot_precision_m: int32?",
            "end_x: float64?",
            "end_y: float64?",
            "end_precision_m: int32?",
            "length: int64",
            "detour: int64?",
            "address: text",
        ]
    );
    let key = RoutePlan::table().column_with(ColumnRole::Key);
    assert_eq!(key.expect("a key").name(), "id");
}

#[test]
fn every_mapper_reads_back_what_it_wrote() {
    for plan in [plan(), full_plan()] {
        let row = stored(&plan);
        let read: RoutePlan = from_row(&row).expect("a plan");
        assert_eq!(read.root().version(), 4);
        assert_eq!(read.root().tenant(), plan.root().tenant());
        assert!(read.root().stamps().created_at.is_some());
        assert_eq!(
            RoutePlan {
                root: plan.root.clone(),
                ..read
            }
            .to_row(),
            plan.to_row()
        );
    }
}

#[test]
fn none_is_null_in_every_column_of_its_field() {
    let row = row_of(&plan()).expect("a row");
    let nulls = |column| {
        let index = RoutePlan::table().index_of_name(column).expect("a column");
        row.values()[index].is_null()
    };
    for column in [
        "note",
        "spare",
        "extra",
        "end_x",
        "end_y",
        "end_precision_m",
        "detour",
    ] {
        assert!(nulls(column), "{column}");
    }
    assert!(!nulls("depot_precision_m"));
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_column() {
    for (column, value, expected) in [
        (
            "plate",
            Value::Text("x".into()),
            "table route_plan, column plate: \"x\": a plate of 1 characters",
        ),
        (
            "tags",
            Value::Json("[]".into()),
            "table route_plan, column tags: invalid type: sequence, expected a map at line 1 column 0",
        ),
        (
            "length",
            Value::Int(-1),
            "table route_plan, column length: a length of -1 mm",
        ),
        (
            "detour",
            Value::Int(-1),
            "table route_plan, column detour: a length of -1 mm",
        ),
        (
            "length",
            Value::Null,
            "table route_plan, column length: expected a value, found NULL",
        ),
        (
            "depot_x",
            Value::Null,
            "table route_plan, column depot_x: expected a value, found NULL",
        ),
    ] {
        let row = with_column::<RoutePlan>(stored(&plan()), column, value);
        let error = from_row::<RoutePlan>(&row).expect_err("it does not fit");
        assert_eq!(error.to_string(), expected);
    }
    let nul = RoutePlan {
        plate: Plate("a\0b".into()),
        ..plan()
    };
    let error = nul.to_row().expect_err("no backend holds it");
    assert_eq!(error.column, "plate");
    assert!(matches!(error.reason, ColumnError::Invalid(_)));
}

#[test]
fn typed_fields_know_their_columns() {
    let fields = RoutePlan::fields();
    assert_eq!(fields.r#type.column(), "kind");
    assert_eq!(fields.version.column(), "version");
    assert_eq!(fields.created_by.column(), "created_by");
    let plan = full_plan();
    for (specification, expected) in [
        (fields.id.eq(plan.id), true),
        (fields.note.eq("n"), true),
        (fields.r#type.gt(1_i16), true),
        (fields.plate.eq(Plate("G-123".into())), true),
        (fields.spare_plate.ne(Plate("W-1".into())), false),
        (fields.length.ge(1250), true),
        (fields.detour.is_null(), false),
        (fields.version.eq(0_u64), true),
    ] {
        assert_eq!(
            specification.is_satisfied_by(&plan),
            Ok(expected),
            "{specification:?}"
        );
    }
}

#[test]
fn it_is_an_aggregate_root() {
    let mut plan = plan();
    assert_eq!(RoutePlan::TYPE, "route_plan");
    assert_eq!(*plan.id(), plan.id);
    plan.root_mut().raise(RoutePlanEvent::Created);
    assert_eq!(plan.root().raised().len(), 1);
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plain", event = RoutePlanEvent)]
struct Plain {
    #[aggregate(id)]
    #[mapper(column = "plain_id")]
    id: Id<Self>,
    #[aggregate(root)]
    root: Root<RoutePlanEvent>,
    created_at: i64,
}

#[test]
fn without_options_only_the_version_is_the_frameworks() {
    assert_eq!(
        columns_of::<Plain>(),
        ["version: int64", "plain_id: uuid", "created_at: int64"]
    );
    assert_eq!(Plain::fields().id.column(), "plain_id");
    let plain = Plain {
        id: Id::new(),
        root: Root::new(),
        created_at: 3,
    };
    let read: Plain = from_row(&row_of(&plain).expect("a row")).expect("a plain one");
    assert_eq!(read.created_at, plain.created_at);
    let same = Plain::fields().id.eq(plain.id);
    assert_eq!(same.is_satisfied_by(&read), Ok(true));
    assert_eq!(
        format!("{:?}", Plain::fields().created_at),
        format!("Field(created_at: {})", ColumnType::Int64)
    );
}
