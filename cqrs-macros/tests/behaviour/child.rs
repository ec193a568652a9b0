//! Children, and columns that are not written.

use cqrs_core::mapping::{Column, ColumnRole, Table};
use cqrs_core::{Aggregate, Child, Columns, DomainEvent, Entity, Id, Root, ValueObject};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "plan")]
enum PlanEvent {
    Made,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Spot {
    x: f64,
    #[mapper(flatten, prefix = "g_")]
    grid: Option<Grid>,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Grid {
    row: i16,
    column: Option<i16>,
}

#[derive(Debug, Clone, PartialEq, Child)]
struct Stop {
    city: String,
    #[mapper(flatten)]
    spot: Option<Spot>,
    #[mapper(generated)]
    length: i32,
}

#[derive(Debug, Clone, PartialEq, Child)]
struct Ticket {
    #[child(key)]
    #[mapper(column = "no")]
    number: String,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "plan", event = PlanEvent, tenant = "org", audit)]
struct Plan {
    #[mapper(children(table = "plan_stop", order = "seq"))]
    stops: Vec<Stop>,
    #[aggregate(id)]
    #[mapper(column = "no")]
    id: Id<Plan>,
    #[aggregate(root)]
    root: Root<PlanEvent>,
    #[mapper(generated)]
    total: i64,
    #[mapper(read_only, column = "seen")]
    views: Option<i64>,
    #[mapper(children(table = "plan_ticket", parent = "plan"))]
    tickets: Vec<Ticket>,
}

fn names(table: &Table) -> Vec<&str> {
    table.columns().iter().map(Column::name).collect()
}

fn plan() -> Plan {
    Plan {
        id: Id::new(),
        root: Root::new(),
        total: 7,
        views: None,
        stops: vec![Stop {
            city: "Graz".into(),
            spot: None,
            length: 4,
        }],
        tickets: Vec::new(),
    }
}

#[test]
fn children_have_tables_with_the_key_the_tenant_and_their_place() {
    let table = Plan::table();
    assert_eq!(table.own_columns().len(), 3);
    let [stops, tickets] = table.children() else {
        panic!("two tables: {table:?}");
    };
    assert_eq!(
        names(stops),
        [
            "plan_no",
            "org",
            "seq",
            "city",
            "spot_x",
            "spot_g_row",
            "spot_g_column",
            "length"
        ]
    );
    assert_eq!(names(tickets), ["plan", "org", "position", "no"]);
    let keys = |table: &'static Table| table.primary_key().map(Column::name).collect::<Vec<_>>();
    assert_eq!(keys(stops), ["plan_no", "seq"]);
    assert_eq!(keys(tickets), ["plan", "no"]);
    assert_eq!(keys(table), ["no"]);
    assert_eq!(stops.parent(), Some(("plan", "no")));
    assert!(stops.is_child() && !table.is_child() && table.is_aggregate());
    let roles: Vec<ColumnRole> = tickets.columns().iter().map(Column::role).collect();
    assert_eq!(
        roles,
        [
            ColumnRole::Parent,
            ColumnRole::Tenant,
            ColumnRole::Order,
            ColumnRole::Key
        ]
    );
    assert_eq!(Stop::columns().len(), 5);
}

#[test]
fn what_is_not_written_is_known() {
    let written = |table: &'static Table| {
        let columns = table.columns().iter();
        let not = columns.filter(|column| !column.is_written());
        not.map(|column| (column.name(), column.is_generated()))
            .collect::<Vec<_>>()
    };
    assert_eq!(written(Plan::table()), [("total", true), ("seen", false)]);
    assert_eq!(written(&Plan::table().children()[0]), [("length", true)]);
}

#[test]
fn typed_fields_reach_into_children() {
    let (f, stop) = (Plan::fields(), Stop::fields());
    assert_eq!(f.stops.table(), "plan_stop");
    let column = stop.spot.grid.row.column();
    assert_eq!(column, "spot_g_row");
    let plan = plan();
    for (condition, expected) in [
        (stop.city.eq("Graz"), true),
        (stop.city.eq("Linz"), false),
        (stop.spot.grid.row.is_null(), true),
        (!stop.spot.grid.row.eq(1_i16), false),
        (stop.length.gt(3), true),
    ] {
        let condition = f.stops.any_child(condition);
        assert_eq!(
            condition.is_satisfied_by(&plan),
            Ok(expected),
            "{condition}"
        );
    }
    let number = f.tickets.fields().number.eq("1");
    let condition = f.tickets.any_child(number) & f.total.eq(7);
    assert_eq!(condition.shape(), "any plan_ticket (no = ?) and total = ?");
    assert_eq!(condition.is_satisfied_by(&plan), Ok(false));
}
