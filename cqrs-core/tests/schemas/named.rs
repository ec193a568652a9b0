//! The ids of schemas.

use cqrs_core::schema::{ContentIds, EventSchema, SchemaIds, SchemaRegistry};
use cqrs_core::{DomainEvent, Error};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::releases::{DefaultText, Text, TextAndMore};
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

/// The same event with enums in it that are described, or in another order.
macro_rules! chosen {
    ($module:ident: $($enums:item)*) => {
        mod $module {
            use super::*;

            $(
                #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
                $enums
            )*

            #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
            #[event(aggregate = "order", name = "order.chosen")]
            pub(super) struct Chosen {
                colour: Colour,
                only: Option<Only>,
                payment: Payment,
                shape: Shape,
            }
        }
    };
}

chosen! {
    bare:
    enum Colour { Red, Green, Blue }
    enum Only { One }
    enum Payment { Cash, Barter, Card { number: String }, Credit(u8) }
    #[serde(tag = "kind")]
    enum Shape { Box { width: u8 }, Bag { also: u8 }, Tube }
}

chosen! {
    described:
    /// Of the article.
    enum Colour {
        /// Not the darkest.
        Red,
        Green,
        /// As the sea.
        Blue,
    }
    enum Only {
        /// There is no other.
        One,
    }
    enum Payment {
        Cash,
        /// No more than once.
        Barter,
        /// Of any bank.
        Card {
            /// As it is printed.
            number: String,
        },
        Credit(u8),
    }
    #[serde(tag = "kind")]
    enum Shape {
        /// With corners.
        Box { width: u8 },
        Bag { also: u8 },
        /// Without.
        Tube,
    }
}

chosen! {
    moved:
    enum Colour { Blue, Red, Green }
    enum Only { One }
    enum Payment { Credit(u8), Barter, Card { number: String }, Cash }
    #[serde(tag = "kind")]
    enum Shape { Tube, Bag { also: u8 }, Box { width: u8 } }
}

#[test]
fn neither_comments_nor_order_make_another_schema() {
    let bare = only::<bare::Chosen>();
    for other in [only::<described::Chosen>(), only::<moved::Chosen>()] {
        assert_eq!(bare.written, other.written);
        assert_eq!(bare.read, other.read);
    }
}
