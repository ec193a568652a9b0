use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list", tenant, shared)]
struct PlanList {
    #[read_model(key)]
    id: i64,
}

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_total", shared = "all")]
struct PlanTotal {
    #[read_model(key)]
    id: i64,
}

fn main() {}
