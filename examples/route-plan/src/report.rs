//! What the program prints: the list of each tenant, totals, and whether they are right.

use cqrs_core::{Query, ReadModels, Store, UnitOfWork};

use crate::check;
use crate::files::Solved;
use crate::plan::{RoutePlan, RoutePlans, RouteStatus};
use crate::read_model::RoutePlanRow;
use crate::table::{PlanTable, Total, Totals};
use crate::tenant;

/// Prints the read model with its totals, and checks the plans of these instances.
pub(crate) async fn print<S: Store>(store: &S, instances: &[&Solved]) -> anyhow::Result<()> {
    let mut totals = vec![Totals::header()];
    let mut on_the_road = Vec::new();
    let mut checked = Total::default();

    for tenant in tenant::ALL {
        let rows = list(store, tenant).await?;
        println!(
            "{}",
            PlanTable {
                tenant,
                rows: &rows
            }
        );
        totals.push(Totals::of(tenant, &rows).to_string());
        on_the_road.push(outlook(store, tenant).await?);
        for solved in instances {
            if tenant::of_instance(&solved.instance.name) == tenant {
                checked += check::instance(solved, &rows)?;
            }
        }
    }
    println!("{}", totals.join("\n"));
    println!("{}\n", on_the_road.join("\n"));
    let Total {
        plans,
        stops,
        distance,
    } = checked;
    println!("checked   {plans} plans, {stops} stops, distance {distance:.3}: as in the files");
    Ok(())
}

/// The read model of a tenant.
async fn list<S: Store>(store: &S, tenant: &str) -> anyhow::Result<Vec<RoutePlanRow>> {
    let by = RoutePlanRow::fields();
    let query = Query::all()
        .order_by(by.instance.asc())
        .order_by(by.route.asc());
    let read_models = store.read_models(&tenant::context(tenant)?);
    Ok(read_models.query(query).await?)
}

/// What the aggregates themselves say of the work ahead.
async fn outlook<S: Store>(store: &S, tenant: &str) -> anyhow::Result<String> {
    let mut uow = store.unit_of_work(&tenant::context(tenant)?);
    let mut plans = uow.repository::<RoutePlan>();
    let on_the_road = plans.count_by_status(RouteStatus::Dispatched).await?;
    let next = plans.find_next_to_dispatch(3).await?;
    let next: Vec<String> = next.iter().map(RoutePlan::label).collect();
    Ok(format!(
        "{tenant:<10}  {on_the_road} on the road, next to go: {}",
        if next.is_empty() {
            "none".to_owned()
        } else {
            next.join(", ")
        }
    ))
}
