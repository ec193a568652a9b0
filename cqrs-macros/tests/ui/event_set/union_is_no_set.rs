use cqrs_core::EventSet;

#[derive(EventSet)]
union Checkout {
    a: u32,
    b: i32,
}

fn main() {}
