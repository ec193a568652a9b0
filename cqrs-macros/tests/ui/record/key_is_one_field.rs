use cqrs_core::Record;

#[derive(Record)]
struct PlanRow {
    #[record(key)]
    id: i64,
    #[record(key)]
    other: i64,
}

fn main() {}
