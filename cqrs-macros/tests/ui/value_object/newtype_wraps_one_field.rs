use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Point(i32, i32);

fn main() {}
