use cqrs_core::Record;

#[derive(Record)]
struct PlanRow<T> {
    #[record(key)]
    id: T,
}

fn main() {}
