use cqrs_core::{ReadModel, Record, ValueObject};

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
#[mapper(row = PlanRow)]
struct PlanList {
    #[read_model(key)]
    id: i64,
}

#[derive(Record)]
#[mapper(row = PlanRow)]
struct PlanRow {
    #[record(key)]
    id: i64,
}

#[derive(ValueObject)]
#[mapper(row = PlanRow)]
struct Point {
    x: i64,
}

fn main() {}
