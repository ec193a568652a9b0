use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Point<T> {
    x: T,
}

fn main() {}
