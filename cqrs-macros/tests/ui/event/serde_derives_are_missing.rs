use cqrs_core::DomainEvent;

#[derive(Clone, DomainEvent)]
#[event(aggregate = "plan")]
enum Event {
    Created,
}

fn main() {}
