use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Point {
    #[value_object(name = "x")]
    x: i32,
}

fn main() {}
