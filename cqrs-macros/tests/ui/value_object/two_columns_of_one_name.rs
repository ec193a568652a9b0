use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Point {
    x: i32,
    #[mapper(column = "x")]
    y: i32,
}

fn main() {}
