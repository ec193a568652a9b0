use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanList {
    #[read_model(key)]
    a: i64,
    #[read_model(key)]
    b: i64,
    #[read_model(key)]
    c: i64,
    #[read_model(key)]
    d: i64,
}

fn main() {}
