use cqrs_core::{EventSet, RawPayload};

struct Order;

#[derive(EventSet)]
enum Checkout {
    Order(Order),
    Others(RawPayload),
}

fn main() {}
