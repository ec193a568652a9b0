//! The read model and its totals as text, in aligned columns.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::RouteStatus;
use crate::read_model::RoutePlanRow;

/// How times are shown, in UTC.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

/// The names of the list's columns.
const HEADER: &str = "tenant      instance     route  status     stops   distance  driver     \
                      planned              changed";

/// The list of a tenant's plans.
pub(crate) struct PlanTable<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) rows: &'a [RoutePlanRow],
}

impl fmt::Display for PlanTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        for row in self.rows {
            writeln!(
                f,
                "{:<10}  {:<12} {:>5}  {:<10} {:>5} {:>10.3}  {:<9}  {:<19}  {}",
                self.tenant,
                row.instance,
                row.route,
                row.status,
                row.stops,
                row.distance,
                row.driver.as_deref().unwrap_or("-"),
                row.planned_at.format(TIME),
                row.changed_at.format(TIME),
            )?;
        }
        Ok(())
    }
}

/// The totals of a tenant: a line for each status, and one for all.
pub(crate) struct Totals<'a> {
    tenant: &'a str,
    by_status: BTreeMap<RouteStatus, Total>,
    all: Total,
}

/// Sums over plans.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Total {
    pub(crate) plans: usize,
    pub(crate) stops: u64,
    pub(crate) distance: f64,
}

impl std::ops::AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.plans += other.plans;
        self.stops += other.stops;
        self.distance += other.distance;
    }
}

impl Total {
    /// The sums of these plans.
    pub(crate) fn of<'r>(rows: impl IntoIterator<Item = &'r RoutePlanRow>) -> Self {
        rows.into_iter().fold(Self::default(), |total, row| Self {
            plans: total.plans + 1,
            stops: total.stops + u64::from(row.stops),
            distance: total.distance + row.distance,
        })
    }
}

impl<'a> Totals<'a> {
    /// The totals of these plans of a tenant.
    pub(crate) fn of(tenant: &'a str, rows: &[RoutePlanRow]) -> Self {
        let with = |status| Total::of(rows.iter().filter(|row| row.status == status));
        Self {
            tenant,
            by_status: rows
                .iter()
                .map(|row| (row.status, with(row.status)))
                .collect(),
            all: Total::of(rows),
        }
    }

    /// The names of the columns.
    pub(crate) fn header() -> String {
        format!(
            "{:<10}  {:<10} {:>5} {:>6} {:>12}",
            "tenant", "status", "plans", "stops", "distance"
        )
    }

    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        status: &dyn fmt::Display,
        total: &Total,
    ) -> fmt::Result {
        let Total {
            plans,
            stops,
            distance,
        } = total;
        writeln!(
            f,
            "{:<10}  {status:<10} {plans:>5} {stops:>6} {distance:>12.3}",
            self.tenant
        )
    }
}

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (status, total) in &self.by_status {
            self.line(f, status, total)?;
        }
        self.line(f, &"all", &self.all)
    }
}
