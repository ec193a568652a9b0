use cqrs_core::Record;

#[derive(Record)]
struct PlanRow {
    #[record(key)]
    id: i64,
    #[mapper(column = "id")]
    other: i64,
}

fn main() {}
