use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list", soft_delete)]
struct PlanList {
    #[read_model(keys)]
    id: i64,
}

fn main() {}
