use cqrs_core::Record;

#[derive(Record)]
struct PlanRow {
    id: i64,
}

fn main() {}
