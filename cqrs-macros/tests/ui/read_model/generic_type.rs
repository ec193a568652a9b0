use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list")]
struct PlanList<T> {
    #[read_model(key)]
    id: T,
}

fn main() {}
