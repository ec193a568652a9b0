use cqrs_core::DomainEvent;

#[derive(Clone, Copy, DomainEvent)]
#[event(aggregate = "plan")]
union Event {
    a: u32,
    b: i32,
}

fn main() {}
