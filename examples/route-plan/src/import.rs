//! The import: a unit of work for each instance, so that its routes are planned together or not at
//! all.
//!
//! A route that breaks a rule would leave its customers without a visit, so its whole instance is
//! refused, and the import goes on with the next. The ids of plans follow from tenant, instance
//! and route: an instance that was imported before is recognised, and left as it is.

use cqrs_core::{CommitReceipt, DomainError, Error, Result, Store, UnitOfWork};
use uuid::Uuid;

use crate::files::Solved;
use crate::plan::{NewRoute, RoutePlan, RoutePlanId};
use crate::tenant;
use crate::violation::Violation;

/// What an import did.
#[derive(Debug, Default)]
pub(crate) struct Import<'a> {
    /// The instances whose plans are in the store now.
    pub(crate) accepted: Vec<&'a Solved>,
    /// How many of them were there before.
    pub(crate) known: usize,
    /// How many plans were written.
    pub(crate) plans: usize,
    /// Why each of the other instances was refused.
    pub(crate) refusals: Vec<String>,
    /// The last commit.
    pub(crate) receipt: Option<CommitReceipt<usize>>,
}

/// Imports instances, and tells on standard error how it goes.
pub(crate) async fn run<'a, S: Store>(store: &S, all: &'a [Solved]) -> anyhow::Result<Import<'a>> {
    let mut import = Import::default();
    for (number, solved) in (1..).zip(all) {
        let name = &solved.instance.name;
        let tenant = tenant::of_instance(name);
        let context = tenant::context(tenant)?;
        let imported = store
            .execute(&context, async |uow| plan_instance(uow, solved))
            .await;
        let outcome = match imported {
            Ok(receipt) => {
                import.accepted.push(solved);
                import.plans += receipt.output();
                let outcome = format!("plans for {tenant}: {}", receipt.output());
                import.receipt = Some(receipt);
                outcome
            }
            Err(Error::AlreadyExists { .. }) => {
                import.accepted.push(solved);
                import.known += 1;
                format!("was imported for {tenant} before")
            }
            Err(error) => {
                let refusal = error.domain::<Refusal>().map(ToString::to_string);
                let Some(refusal) = refusal else {
                    return Err(anyhow::Error::from(error).context(format!("importing {name}")));
                };
                let outcome = format!("refused, {refusal}");
                import.refusals.push(format!("{name}, {refusal}"));
                outcome
            }
        };
        eprintln!("[{number}/{}] {name}: {outcome}", all.len());
    }
    Ok(import)
}

/// Stages the plans of an instance, and returns how many there are.
fn plan_instance<U: UnitOfWork>(uow: &mut U, solved: &Solved) -> Result<usize> {
    let instance = &solved.instance;
    for (route, stops) in (1..).zip(&solved.routes) {
        let new = NewRoute {
            id: plan_id(&instance.name, route),
            instance: instance.name.clone(),
            route,
            capacity: instance.capacity,
            depot: instance.depot.clone(),
            stops: stops.clone(),
        };
        let plan = RoutePlan::plan(new).map_err(|violation| Refusal { route, violation })?;
        uow.save(plan)?;
    }
    Ok(solved.routes.len())
}

/// The id of the plan for a route, the same in every import.
pub(crate) fn plan_id(instance: &str, route: u32) -> RoutePlanId {
    let tenant = tenant::of_instance(instance);
    let name = format!("urn:route-plan:{tenant}:{instance}:{route}");
    RoutePlanId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()))
}

/// Why an instance was refused.
#[derive(Debug, thiserror::Error)]
#[error("route {route}: {violation}")]
struct Refusal {
    route: u32,
    violation: Violation,
}

impl DomainError for Refusal {}
