#[path = "../support.rs"]
mod support;

use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanRow {
    #[read_model(key)]
    #[mapper(generated)]
    id: i64,
}

fn main() {}
