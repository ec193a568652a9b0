//! The two tenants, and which instance belongs to whom.
//!
//! Solomon's instances come in two series: the numbers from 101 have a short day and small
//! vehicles, so many short routes; those from 201 a long day and large vehicles, so few long
//! routes. Each series is the business of one tenant.

use cqrs_core::{InvalidTenantId, RequestContext, TenantId};

/// The tenant of the instances numbered from 201.
const LONG_HAUL: &str = "long-haul";
/// The tenant of all others.
const SHORT_HAUL: &str = "short-haul";

/// The tenants.
pub(crate) const ALL: [&str; 2] = [LONG_HAUL, SHORT_HAUL];

/// The tenant of an instance, by its name: `0025_RC201` is numbered 201.
pub(crate) fn of_instance(name: &str) -> &'static str {
    let number = name.trim_end_matches(|last: char| last.is_ascii_digit());
    match name[number.len()..].starts_with('2') {
        true => LONG_HAUL,
        false => SHORT_HAUL,
    }
}

/// The context of work for a tenant.
pub(crate) fn context(tenant: &str) -> Result<RequestContext, InvalidTenantId> {
    Ok(RequestContext::tenant(TenantId::new(tenant)?).with_actor("route-plan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_an_instance_tells_its_tenant() {
        for name in ["0025_C101", "0025_RC108", "0025_S1", "0025_2X", ""] {
            assert_eq!(of_instance(name), SHORT_HAUL, "{name}");
        }
        for name in ["0025_C201", "0025_RC208", "0025_R211"] {
            assert_eq!(of_instance(name), LONG_HAUL, "{name}");
        }
    }
}
