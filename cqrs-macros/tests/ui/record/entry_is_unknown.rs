use cqrs_core::Record;

#[derive(Record)]
struct PlanRow {
    #[record(id)]
    id: i64,
}

fn main() {}
