use cqrs_core::ReadModel;

#[derive(Debug, Clone, ReadModel)]
#[read_model(table = "plan_list", tenant)]
struct PlanList {
    #[read_model(key)]
    id: i64,
    tenant_id: String,
}

fn main() {}
