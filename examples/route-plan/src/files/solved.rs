//! An instance together with its routes.

use std::collections::HashMap;
use std::path::Path;

use super::best_known::BestKnown;
use super::error::ImportError;
use super::instance::Instance;
use crate::schedule::Stop;

/// An instance with its best-known routes, which visit each of its customers on one route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Solved {
    /// Depot, customers and vehicles.
    pub(crate) instance: Instance,
    /// Sum of the distances of all routes, rounded as their file has it.
    pub(crate) distance: f64,
    /// The routes with their stops in full, in the order of their file.
    pub(crate) routes: Vec<Vec<Stop>>,
}

impl Solved {
    /// Looks up the customers of each route; `routes_file` is for the error.
    pub(super) fn pair(
        instance: Instance,
        best_known: BestKnown,
        routes_file: &Path,
    ) -> Result<Self, ImportError> {
        let name = &instance.name;
        let error = |line, reason| ImportError {
            file: routes_file.to_owned(),
            line: Some(line),
            reason,
        };
        let customers: HashMap<u32, &Stop> = instance
            .customers
            .iter()
            .map(|stop| (stop.customer, stop))
            .collect();
        let mut routes = Vec::with_capacity(best_known.routes.len());
        let mut line_of_visit = HashMap::new();

        for (line, route) in (best_known.line + 1..).zip(&best_known.routes) {
            let mut stops = Vec::with_capacity(route.len());
            for id in route {
                let Some(&stop) = customers.get(id) else {
                    let reason = format!("expected a customer of instance {name}, found {id}");
                    return Err(error(line, reason));
                };
                // Twice on the same route is for the plan to refuse; on two routes, each plan by
                // itself looks right, so nobody else would see it.
                match line_of_visit.insert(id, line) {
                    Some(first) if first != line => {
                        let reason = format!(
                            "expected each customer of instance {name} on one route, \
                             found {id} on the route of line {first} also"
                        );
                        return Err(error(line, reason));
                    }
                    _ => stops.push(stop.clone()),
                }
            }
            routes.push(stops);
        }

        let on_a_route = |stop: &&Stop| line_of_visit.contains_key(&stop.customer);
        if let Some(left_out) = instance.customers.iter().find(|one| !on_a_route(one)) {
            let reason = format!(
                "expected each customer of instance {name} on one route, found {} on none",
                left_out.customer
            );
            return Err(error(best_known.line, reason));
        }
        Ok(Self {
            instance,
            distance: best_known.distance,
            routes,
        })
    }
}
