use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Tags(#[mapper(json)] Vec<String>);

fn main() {}
