//! Which events a subscription reads.

use crate::envelope::Envelope;
use crate::event::EventSet;
use crate::projection::{Projection, RowProjection};

/// Which events a subscription reads: those with one of the aggregate types and one of the event
/// types. A database looks at it, so that other events are not even fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter {
    aggregate_types: Option<Vec<&'static str>>,
    event_types: Option<Vec<&'static str>>,
}

impl EventFilter {
    /// No event at all.
    pub(super) fn none() -> Self {
        Self {
            aggregate_types: Some(Vec::new()),
            event_types: Some(Vec::new()),
        }
    }

    /// What a projection reads.
    pub(super) fn of<T, P: Projection<T>>(projection: &P) -> Self {
        Self::of_types::<P::Event>(projection.event_types())
    }

    /// What a projection by rows reads.
    pub(crate) fn of_rows<P: RowProjection>() -> Self {
        Self::of_types::<P::Event>(P::EVENT_TYPES)
    }

    /// All events of a set.
    pub(crate) fn of_set<E: EventSet>() -> Self {
        Self::of_types::<E>(None)
    }

    /// Events of a set, of these types. One that was renamed is read under all its names.
    fn of_types<E: EventSet>(types: Option<&[&'static str]>) -> Self {
        Self {
            aggregate_types: E::aggregate_types().map(<[_]>::to_vec),
            event_types: types.map(|types| {
                let others = types.iter().flat_map(|own| E::other_names(own));
                types.iter().copied().chain(others).collect()
            }),
        }
    }

    /// The events of one more aggregate type.
    pub(crate) fn with_aggregate_type(mut self, name: &'static str) -> Self {
        self.aggregate_types = self.aggregate_types.map(|mut types| {
            types.push(name);
            types
        });
        self
    }

    /// Everything that this or the other reads, and maybe more.
    pub(super) fn or(&self, other: &Self) -> Self {
        Self {
            aggregate_types: union(&self.aggregate_types, &other.aggregate_types),
            event_types: union(&self.event_types, &other.event_types),
        }
    }

    /// The event types that no event of a set has.
    pub(super) fn unknown_to<E: EventSet>(&self) -> impl Iterator<Item = &'static str> {
        let types = self.event_types.iter().flatten().copied();
        types.filter(|event_type| !E::may_hold(event_type))
    }

    /// The aggregate types; `None` for all.
    #[must_use]
    pub fn aggregate_types(&self) -> Option<&[&'static str]> {
        self.aggregate_types.as_deref()
    }

    /// The event types; `None` for all.
    #[must_use]
    pub fn event_types(&self) -> Option<&[&'static str]> {
        self.event_types.as_deref()
    }

    /// Whether it lets events of this aggregate type pass.
    #[must_use]
    pub fn reads(&self, aggregate_type: &str) -> bool {
        is_in(&self.aggregate_types, aggregate_type)
    }

    /// Whether it lets this event pass.
    #[must_use]
    pub fn wants<P>(&self, event: &Envelope<P>) -> bool {
        self.reads(event.aggregate_type()) && is_in(&self.event_types, event.event_type())
    }
}

fn is_in(types: &Option<Vec<&'static str>>, wanted: &str) -> bool {
    types.as_ref().is_none_or(|types| types.contains(&wanted))
}

fn union(
    one: &Option<Vec<&'static str>>,
    other: &Option<Vec<&'static str>>,
) -> Option<Vec<&'static str>> {
    let (one, other) = (one.as_ref()?, other.as_ref()?);
    let mut all = [one.as_slice(), other].concat();
    all.sort_unstable();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(aggregates: Option<&[&'static str]>, events: Option<&[&'static str]>) -> EventFilter {
        EventFilter {
            aggregate_types: aggregates.map(<[_]>::to_vec),
            event_types: events.map(<[_]>::to_vec),
        }
    }

    #[cfg(feature = "derive")]
    #[test]
    fn renamed_types_are_read_under_all_their_names() {
        #[derive(Clone, serde::Serialize, serde::Deserialize, crate::DomainEvent)]
        #[event(aggregate = "letter")]
        enum Letter {
            #[event(name = "letter.posted", was("letter.sent"))]
            Posted,
        }
        let named = EventFilter::of_types::<Letter>(Some(&["letter.posted"]));
        let both = Some(&["letter.posted", "letter.sent"][..]);
        assert_eq!(named, filter(Some(&["letter"]), both));
    }

    #[test]
    fn a_union_lets_pass_what_either_does() {
        let plans = filter(Some(&["plan"]), Some(&["plan.made"]));
        let trucks = filter(Some(&["truck", "plan"]), None);
        assert_eq!(EventFilter::none().or(&plans), plans);
        assert_eq!(plans.or(&trucks), filter(Some(&["plan", "truck"]), None));
        assert_eq!(trucks.or(&filter(None, Some(&[]))), filter(None, None));
    }
}
