#[path = "../support.rs"]
mod support;

use cqrs_core::{Child, ReadModel, Record, ValueObject};

#[derive(Debug, Clone, Child)]
struct Stop {
    city: String,
    #[mapper(children(table = "stop_note"))]
    notes: Vec<Note>,
}

#[derive(Debug, Clone, Child)]
struct Note {
    text: String,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanRow {
    #[read_model(key)]
    id: i64,
    #[mapper(children(table = "plan_stop"))]
    stops: Vec<Stop>,
}

#[derive(Record)]
struct PlanRecord {
    #[record(key)]
    id: i64,
    #[mapper(children(table = "plan_stop"))]
    stops: Vec<Stop>,
}

#[derive(ValueObject)]
struct Depot {
    city: String,
    #[mapper(children(table = "depot_note"))]
    notes: Vec<Note>,
}

fn main() {}
