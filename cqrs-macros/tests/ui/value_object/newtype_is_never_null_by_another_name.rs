use cqrs_core::ValueObject;

#[derive(ValueObject)]
struct Note(Maybe);

type Maybe = Option<String>;

fn main() {}
