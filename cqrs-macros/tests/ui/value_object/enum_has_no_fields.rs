use cqrs_core::ValueObject;

#[derive(ValueObject)]
enum Status {
    Ready,
    Sent { to: String },
}

fn main() {}
