use cqrs_core::ValueObject;

#[derive(ValueObject)]
enum Status {
    Ready,
    #[value_object(name = "ready")]
    Done,
}

fn main() {}
