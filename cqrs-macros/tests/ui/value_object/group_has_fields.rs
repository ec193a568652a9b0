use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Point;

fn main() {}
