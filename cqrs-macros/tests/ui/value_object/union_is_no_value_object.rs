use cqrs_core::ValueObject;

#[derive(ValueObject)]
union Point {
    x: i32,
    y: u32,
}

fn main() {}
