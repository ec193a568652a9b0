use cqrs_core::ValueObject;

#[derive(ValueObject)]
enum Status {
    #[value_object(name = "")]
    Ready,
}

fn main() {}
