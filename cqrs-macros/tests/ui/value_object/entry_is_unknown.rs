use cqrs_core::ValueObject;

#[derive(ValueObject)]
#[value_object(table = "x")]
enum Status {
    #[value_object(nam = "x")]
    Ready,
}

fn main() {}
