//! Conditions over the children of an aggregate.

use std::fmt;
use std::marker::PhantomData;

use super::Specification;
use crate::mapping::Child;

/// The children of a `T` in one of its fields.
///
/// The derive makes them; `RoutePlan::fields().stops` are some.
pub struct Children<T, C> {
    table: &'static str,
    of: PhantomData<fn(&T) -> C>,
}

impl<T, C> Children<T, C> {
    /// The children in this table.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(table: &'static str) -> Self {
        Self {
            table,
            of: PhantomData,
        }
    }

    /// The name of their table.
    #[must_use]
    pub const fn table(&self) -> &'static str {
        self.table
    }
}

impl<T, C: Child> Children<T, C> {
    /// Whether the condition is true for any of the children; false where there are none. Never
    /// unknown: a child for which the condition is unknown is not one for which it is true.
    ///
    /// `any_child(Specification::all())` asks whether there are children.
    ///
    /// # Example
    ///
    /// ```
    /// # use cqrs_core::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
    /// # #[event(aggregate = "route_plan")]
    /// # enum RoutePlanEvent { Created {} }
    /// #[derive(Clone, Child)]
    /// struct Stop {
    ///     city: String,
    ///     minutes: i32,
    /// }
    ///
    /// #[derive(Clone, Aggregate)]
    /// #[aggregate(table = "route_plan", event = RoutePlanEvent)]
    /// struct RoutePlan {
    ///     #[aggregate(id)]
    ///     id: Id<RoutePlan>,
    ///     #[aggregate(root)]
    ///     root: Root<RoutePlanEvent>,
    ///     #[mapper(children(table = "route_stop"))]
    ///     stops: Vec<Stop>,
    /// }
    ///
    /// let stop = Stop::fields();
    /// let long_in_graz = RoutePlan::fields().stops.any_child(stop.city.eq("Graz") & stop.minutes.gt(30));
    ///
    /// let stops = vec![Stop { city: "Graz".to_owned(), minutes: 45 }];
    /// let plan = RoutePlan { id: Id::new(), root: Root::new(), stops };
    /// assert!(long_in_graz.is_satisfied_by(&plan)?);
    /// # Ok::<(), cqrs_core::mapping::MappingError>(())
    /// ```
    #[must_use]
    pub fn any_child(self, condition: Specification<C>) -> Specification<T> {
        condition.of_any_child(self.table)
    }

    /// The typed fields of one of them.
    #[must_use]
    pub fn fields(self) -> C::Fields {
        C::fields()
    }
}

impl<T, C> Clone for Children<T, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, C> Copy for Children<T, C> {}

impl<T, C> fmt::Debug for Children<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Children({})", self.table)
    }
}
