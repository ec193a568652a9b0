//! The schemas of payloads.

use chrono::{DateTime, Utc};
use cqrs_core::schema::EventSchemas;
use cqrs_core::{DomainEvent, Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{only, schemas};

struct Tree;

/// Every way in which a payload is made.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[serde(rename_all = "camelCase")]
#[event(aggregate = "tree")]
enum TreeEvent {
    /// Said to readers of the code alone.
    Seen,
    FelledDown,
    Grown {},
    #[serde(rename = "a measure")]
    Measured(i64),
    Moved(i8, String),
    Planted {
        id: Id<Tree>,
        by: TenantId,
        at: DateTime<Utc>,
        note: Option<String>,
        #[serde(default)]
        depth: u32,
    },
    Tagged(Tag),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Tag {
    children: Vec<Tag>,
}

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

#[test]
fn schemas_are_those_of_payloads() {
    let all = schemas::<TreeEvent>();
    let of = |name: &str| {
        let mut all = all.iter();
        let found = all.find(|schema| schema.event_type.name == name);
        found
            .unwrap_or_else(|| panic!("there is no {name}"))
            .clone()
    };
    assert_eq!(all.iter().count(), 7);
    for unit in ["tree.seen", "tree.felled_down"] {
        assert_eq!(
            of(unit).written,
            json!({"$schema": DIALECT, "type": "object", "additionalProperties": false})
        );
        assert_eq!(of(unit).read, json!(true));
    }
    assert_eq!(
        of("tree.grown").written,
        json!({"$schema": DIALECT, "type": "object", "additionalProperties": false})
    );
    assert_eq!(
        of("tree.measured").written,
        json!({"$schema": DIALECT, "type": "integer", "format": "int64"})
    );
    let moved = of("tree.moved").written;
    assert_eq!(
        (&moved["minItems"], &moved["maxItems"]),
        (&json!(2), &json!(2))
    );
    let planted = of("tree.planted");
    assert_eq!(
        planted.written["required"],
        json!(["at", "by", "depth", "id", "note"])
    );
    assert_eq!(planted.read["required"], json!(["at", "by", "id"]));
    assert_eq!(planted.written["properties"]["id"]["format"], "uuid");
    assert_eq!(
        planted.written["properties"]["by"],
        json!({"type": "string", "format": "tenant-id"})
    );
    let tagged = of("tree.tagged").written;
    assert_eq!(tagged["$ref"], "#/$defs/Tag");
    let definitions = tagged["$defs"].as_object().unwrap();
    assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Tag"]);
    assert!(!format!("{all:?}{}", planted.written).contains("readers of the code"));
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "tree", name = "tree.dug")]
pub(crate) struct Dug;

#[test]
fn a_struct_is_an_event_type() {
    let dug = only::<Dug>();
    assert_eq!(dug.event_type.name, "tree.dug");
    assert_eq!(dug.written["additionalProperties"], false);
}

#[test]
fn an_event_type_has_one_schema() {
    let error = schemas::<Dug>().with::<Dug>().unwrap_err();
    assert!(error.to_string().contains("\"tree.dug\""), "{error}");
}

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "tree")]
enum Undescribed {
    Kept { by: String },
}

impl JsonSchema for Undescribed {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Undescribed".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        true.into()
    }
}

#[test]
fn a_schema_of_something_else_is_refused() {
    let error = EventSchemas::new().with::<Undescribed>().unwrap_err();
    assert!(error.to_string().contains("\"tree.kept\""), "{error}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "tree")]
enum Nested {
    Undone { event: Box<Nested> },
}

/// The enum is not what the log holds.
#[test]
fn an_event_that_contains_its_enum_is_refused() {
    let error = EventSchemas::new().with::<Nested>().unwrap_err();
    assert!(error.to_string().contains("\"tree.undone\""), "{error}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "tree", name = "tree.grafted")]
struct Grafted {
    value: i32,
    on: Wrapped,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Wrapped(Option<Box<Grafted>>);

mod wider {
    use super::*;

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "tree", name = "tree.grafted")]
    pub(super) struct Grafted {
        value: i64,
        on: Wrapped,
    }

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    struct Wrapped(Option<Box<Grafted>>);
}

/// A definition that leads back to the payload changes with it.
#[test]
fn a_payload_that_contains_itself_is_compared_all_the_way() {
    let (narrow, wide) = (only::<Grafted>(), only::<wider::Grafted>());
    assert!(wide.refuses(&narrow).is_empty());
    let places: Vec<String> = narrow
        .refuses(&wide)
        .into_iter()
        .map(|reason| reason.path)
        .collect();
    assert_eq!(places.last().map(String::as_str), Some("value"));
}
