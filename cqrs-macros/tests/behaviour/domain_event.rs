use cqrs_core::{DomainEvent, EventType};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "route_plan")]
enum RoutePlanEvent {
    Created {
        stops: u32,
    },
    #[event(name = "route_plan.sent", version = 2, since = 2)]
    Dispatched(String),
    #[serde(rename = "done")]
    AllDone,
}

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "meter", name = "meter.read", version = 3, since = 3)]
struct MeterRead {
    value: u64,
}

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "meter")]
struct MeterInstalled;

fn event_type(name: &'static str, schema_version: u32) -> EventType {
    EventType {
        name,
        schema_version,
    }
}

#[test]
fn an_enum_has_an_event_type_for_each_variant() {
    assert_eq!(RoutePlanEvent::AGGREGATE_TYPE, "route_plan");
    assert_eq!(
        RoutePlanEvent::EVENT_TYPES,
        [
            event_type("route_plan.created", 1),
            event_type("route_plan.sent", 2),
            event_type("route_plan.all_done", 1),
        ]
    );
}

#[test]
fn a_value_knows_its_event_type() {
    let events = [
        RoutePlanEvent::Created { stops: 1 },
        RoutePlanEvent::Dispatched("Kim".into()),
        RoutePlanEvent::AllDone,
    ];
    let names: Vec<&str> = events.iter().map(|event| event.event_type().name).collect();
    assert_eq!(
        names,
        [
            "route_plan.created",
            "route_plan.sent",
            "route_plan.all_done"
        ]
    );
}

#[test]
fn a_struct_is_one_event_type() {
    assert_eq!(MeterRead::EVENT_TYPES, [event_type("meter.read", 3)]);
    assert_eq!(MeterRead { value: 1 }.variant(), 0);
    assert_eq!(
        MeterInstalled.event_type(),
        &event_type("meter.meter_installed", 1)
    );
}
