use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Note(Option<String>);

fn main() {}
