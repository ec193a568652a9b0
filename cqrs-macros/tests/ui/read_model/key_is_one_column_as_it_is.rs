use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanList {
    #[read_model(key)]
    #[mapper(json)]
    id: i64,
}

fn main() {}
