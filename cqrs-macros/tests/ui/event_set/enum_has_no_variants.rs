use cqrs_core::EventSet;

#[derive(EventSet)]
enum Checkout {}

fn main() {}
