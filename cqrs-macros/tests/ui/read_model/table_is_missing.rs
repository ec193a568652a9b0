use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(tenant)]
struct PlanList {
    #[read_model(key)]
    id: i64,
}

fn main() {}
