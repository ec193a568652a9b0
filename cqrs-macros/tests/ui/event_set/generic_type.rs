use cqrs_core::EventSet;

#[derive(EventSet)]
enum Checkout<E> {
    Order(E),
}

fn main() {}
