use cqrs_core::ValueObject;

#[derive(ValueObject)]
enum Status {}

fn main() {}
