use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanList {
    #[read_model(key)]
    id: i64,
    #[mapper(column = "id")]
    other: i64,
}

fn main() {}
