use cqrs_core::ReadModel;

#[derive(Debug, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanList {
    #[read_model(key)]
    id: i64,
}

fn main() {}
