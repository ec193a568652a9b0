#[path = "../support.rs"]
mod support;

use cqrs_core::Child;

#[derive(Debug, Clone, Child)]
enum Stop {
    Graz,
}

#[derive(Debug, Clone, Child)]
struct Pair(i32, i32);

fn main() {}
