#[path = "../support.rs"]
mod support;

use cqrs_core::Child;

#[derive(Debug, Clone, Child)]
struct Stop {
    #[child(key)]
    city: String,
    #[child(key)]
    street: Option<String>,
    #[child(id)]
    number: i32,
}

fn main() {}
