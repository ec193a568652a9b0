use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Tags(Vec<String>);

fn main() {}
