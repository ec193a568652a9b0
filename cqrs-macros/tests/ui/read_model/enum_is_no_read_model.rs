use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
enum PlanList {
    Open,
}

fn main() {}
