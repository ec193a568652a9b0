use cqrs_core::mapping::{ColumnRole, Value, ValueRow};
use cqrs_core::{Entity, ReadModel, RowKey, ValueObject};

use crate::{columns_of, from_row, row_of, with_column};

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Point {
    x: i32,
    y: i32,
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "depot_day", tenant)]
struct DepotDay {
    #[read_model(key)]
    depot: String,
    routes: u32,
    #[read_model(key)]
    #[mapper(column = "day_number")]
    day: i32,
    #[mapper(flatten)]
    place: Option<Point>,
    version: i64,
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "counter_of_all", shared)]
struct CounterOfAll {
    #[read_model(key)]
    name: String,
    count: i64,
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(table = "counter")]
struct Counter {
    #[read_model(key)]
    name: String,
    count: i64,
}

fn day() -> DepotDay {
    DepotDay {
        depot: "north".into(),
        routes: 4,
        day: 11,
        place: Some(Point { x: 1, y: 2 }),
        version: 9,
    }
}

#[test]
fn rows_are_shared_where_that_is_said() {
    assert!(CounterOfAll::table().is_shared());
    assert!(!CounterOfAll::table().is_tenant());
    assert!(!Counter::table().is_shared());
    assert!(!DepotDay::table().is_shared());
    assert_eq!(columns_of::<CounterOfAll>(), ["name: text", "count: int64"]);
}

#[test]
fn the_tenant_is_the_only_column_of_the_framework() {
    assert_eq!(
        columns_of::<DepotDay>(),
        [
            "tenant_id: text",
            "depot: text",
            "routes: int64",
            "day_number: int32",
            "place_x: int32?",
            "place_y: int32?",
            "version: int64",
        ]
    );
    assert_eq!(columns_of::<Counter>(), ["name: text", "count: int64"]);
}

#[test]
fn a_row_reads_back_past_the_tenant() {
    let row = row_of(&day()).expect("a row");
    let row = with_column::<DepotDay>(row, "tenant_id", Value::Text("t".into()));
    assert_eq!(from_row::<DepotDay>(&row), Ok(day()));

    let counter = Counter {
        name: "a".into(),
        count: 1,
    };
    let row: ValueRow = row_of(&counter).expect("a row");
    assert_eq!(from_row::<Counter>(&row), Ok(counter));
}

#[test]
fn the_key_is_one_field_or_a_tuple() {
    let table = DepotDay::table();
    let keys: Vec<&str> = table
        .key_columns()
        .map(cqrs_core::mapping::Column::name)
        .collect();
    assert_eq!(keys, ["depot", "day_number"]);
    assert_eq!(table.columns()[2].role(), ColumnRole::Data);
    assert_eq!(day().key(), ("north".to_owned(), 11));
    assert_eq!(
        day().key().to_values(),
        Ok(vec![Value::Text("north".into()), Value::Int(11)])
    );
}

#[test]
fn its_fields_make_conditions() {
    let fields = DepotDay::fields();
    let busy = fields.routes.ge(4_u32) & fields.day.eq(11) & fields.version.eq(9);
    assert_eq!(busy.is_satisfied_by(&day()), Ok(true));
}
