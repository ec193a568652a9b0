use cqrs_core::ValueObject;

#[derive(ValueObject)]
enum Status {
    #[mapper(column = "x")]
    Ready,
}

fn main() {}
