use cqrs_core::{DomainEvent, EventSet};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "order")]
enum OrderEvent {
    Placed,
}

enum Checkout {
    Order(OrderEvent),
}

struct Checkouts;

impl<T: Send> cqrs_core::Projection<T> for Checkouts {
    type Event = Checkout;

    fn name(&self) -> &str {
        "checkouts"
    }

    async fn apply(
        &self,
        _: &[cqrs_core::Envelope<Checkout>],
        _: &mut T,
    ) -> cqrs_core::Result<()> {
        Ok(())
    }
}

fn main() {}
