//! The ids of schemas.

use cqrs_core::schema::{ContentIds, EventSchema, SchemaIds, SchemaRegistry};
use cqrs_core::{DomainEvent, Error};

use crate::compared::{DefaultText, Text, TextAndMore};
use crate::{only, schemas};

#[tokio::test]
async fn content_names_a_schema() {
    let ids = schemas::<Text>().register(&ContentIds).await.unwrap();
    let again = schemas::<Text>().register(&ContentIds).await.unwrap();
    assert_eq!(ids, again);
    let other = schemas::<TextAndMore>()
        .register(&ContentIds)
        .await
        .unwrap();
    assert_ne!(ids, other);
    assert_eq!(only::<Text>().content_id().len(), 64);
    // What only readers notice does not make it another schema.
    assert_eq!(
        only::<Text>().content_id(),
        only::<DefaultText>().content_id()
    );
}

struct Refusing(&'static str);

impl SchemaRegistry for Refusing {
    async fn register(&self, schema: &EventSchema) -> cqrs_core::Result<String> {
        match self.0 {
            "refuse" => Err(Error::other(format!(
                "{} is refused",
                schema.event_type.name
            ))),
            id => Ok(id.to_owned()),
        }
    }
}

#[tokio::test]
async fn what_a_registry_says_is_checked() {
    let all = schemas::<Text>();
    let error = all.register(&Refusing("refuse")).await.unwrap_err();
    assert_eq!(error.to_string(), "order.placed is refused");
    for id in ["", "a\0b", "a\n"] {
        let error = all.register(&Refusing(id)).await.unwrap_err();
        assert!(error.to_string().contains("order.placed"), "{error}");
    }
    let long = all.register(&Refusing("x")).await.unwrap();
    let mut by_hand = SchemaIds::default();
    let event_type = Text::EVENT_TYPES[0];
    let _ = by_hand
        .add("order", event_type, "y".repeat(256))
        .unwrap_err();
    by_hand.add("order", event_type, "x").unwrap();
    assert_eq!(long, by_hand);
}
