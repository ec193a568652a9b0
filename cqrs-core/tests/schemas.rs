//! Schemas of events: how they are derived, compared, recorded and named.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, what cannot be unwrapped is a failure"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use cqrs_core::schema::{
    Compatibility, ContentIds, EventSchema, EventSchemas, SchemaIds, SchemaRegistry,
};
use cqrs_core::sealed::Sealed;
use cqrs_core::testing::SchemaFiles;
use cqrs_core::{DomainEvent, Error, Id, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

fn schemas<E: DomainEvent + JsonSchema>() -> EventSchemas {
    EventSchemas::new().with::<E>().unwrap()
}

fn only<E: DomainEvent + JsonSchema>() -> EventSchema {
    schemas::<E>().iter().next().unwrap().clone()
}

/// What a failing check says.
fn complaint(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("it fails");
    *panic.downcast::<String>().unwrap()
}

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
struct Dug;

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

/// The payload of one event in several releases: its type, and values of it.
macro_rules! releases {
    ($($name:ident $(#[$attribute:meta])*: { $($field:tt)* } = $values:expr;)*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, DomainEvent)]
            #[event(aggregate = "order", name = "order.placed")]
            $(#[$attribute])*
            struct $name { $($field)* }
        )*

        /// Each release: its name, its schema, what it wrote, and whether it reads a payload.
        fn releases() -> Vec<Release> {
            vec![$({
                let values: Vec<$name> = $values;
                Release {
                    name: stringify!($name),
                    schema: only::<$name>(),
                    wrote: values.iter().map(|value| serde_json::to_string(value).unwrap()).collect(),
                    reads: |text| serde_json::from_str::<$name>(text).is_ok(),
                }
            }),*]
        }
    };
}

struct Release {
    name: &'static str,
    schema: EventSchema,
    wrote: Vec<String>,
    reads: fn(&str) -> bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Item {
    article: String,
    pieces: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Payment {
    Cash,
    Card { number: String },
    Credit(u8),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Payment")]
enum MorePayment {
    Cash,
    Card {
        number: String,
        #[serde(default)]
        holder: Option<String>,
    },
    Credit(u16),
    Barter,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
enum Shape {
    Box(Item),
    Bag { litres: i32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[schemars(rename = "Shape")]
enum MoreShape {
    Bag { litres: i64 },
    Box(Item),
    Tube,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Loose {
    Number(i32),
    Text(String),
    Item(Item),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Node {
    value: i32,
    next: Option<Box<Node>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Node")]
struct WideNode {
    value: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<WideNode>,
    next: Option<Box<WideNode>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    payment: Payment,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "of")]
enum Adjacent {
    Cash,
    Card(u8),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "of")]
#[schemars(rename = "Adjacent")]
enum AdjacentBare {
    Cash,
    Card,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Größe ~ 1/m")]
struct Size {
    value: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Größe ~ 1/m")]
struct SizeInWords {
    value: String,
}

fn item(pieces: u32) -> Item {
    let article = "nut".to_owned();
    Item { article, pieces }
}

releases! {
    Empty: {} = vec![Empty {}];
    Text: { x: String } = vec![Text { x: "x".to_owned() }, Text { x: String::new() }];
    OptionalText: { x: Option<String> } = vec![OptionalText { x: None }, OptionalText { x: Some("y".to_owned()) }];
    OmittedText: { #[serde(default, skip_serializing_if = "Option::is_none")] x: Option<String> }
        = vec![OmittedText { x: None }, OmittedText { x: Some("y".to_owned()) }];
    DefaultText: { #[serde(default)] x: String } = vec![DefaultText { x: "z".to_owned() }];
    Character: { x: char } = vec![Character { x: 'ö' }];
    Moment: { x: DateTime<Utc> } = vec![Moment { x: DateTime::UNIX_EPOCH }];
    Identity: { x: Uuid } = vec![Identity { x: Uuid::nil() }];
    Small: { x: u8 } = vec![Small { x: 0 }, Small { x: u8::MAX }];
    Signed: { x: i32 } = vec![Signed { x: i32::MIN }, Signed { x: i32::MAX }];
    Large: { x: u64 } = vec![Large { x: 0 }, Large { x: u64::MAX }];
    Single: { x: f32 } = vec![Single { x: 0.5 }, Single { x: f32::MAX }];
    Double: { x: f64 } = vec![Double { x: 0.1 }, Double { x: f64::MAX }];
    Truth: { x: bool } = vec![Truth { x: true }];
    Nothing: { x: () } = vec![Nothing { x: () }];
    Anything: { x: Value } = vec![Anything { x: json!({"a": [1]}) }, Anything { x: Value::Null }];
    One: { x: Item } = vec![One { x: item(1) }];
    Several: { x: Vec<Item> } = vec![Several { x: vec![] }, Several { x: vec![item(1), item(2)] }];
    Three: { x: [u8; 3] } = vec![Three { x: [1, 2, 3] }];
    Couple: { x: (u8, u8) } = vec![Couple { x: (1, 2) }];
    Bytes: { x: Vec<u8> } = vec![Bytes { x: vec![] }, Bytes { x: vec![1, 1] }];
    Distinct: { x: std::collections::BTreeSet<u8> } = vec![Distinct { x: [1, 2].into() }];
    Named: { x: HashMap<String, u8> } = vec![Named { x: [("a".to_owned(), 1)].into() }];
    Numbered: { x: BTreeMap<u32, u8> } = vec![Numbered { x: [(7, 1)].into() }];
    Paid: { x: Payment } = vec![
        Paid { x: Payment::Cash },
        Paid { x: Payment::Card { number: "1".to_owned() } },
        Paid { x: Payment::Credit(3) },
    ];
    PaidAgain: { x: MorePayment } = vec![
        PaidAgain { x: MorePayment::Cash },
        PaidAgain { x: MorePayment::Barter },
        PaidAgain { x: MorePayment::Credit(300) },
        PaidAgain { x: MorePayment::Card { number: "1".to_owned(), holder: Some("Ada".to_owned()) } },
    ];
    Packed: { x: Shape } = vec![Packed { x: Shape::Box(item(1)) }, Packed { x: Shape::Bag { litres: 2 } }];
    PackedAgain: { x: MoreShape } = vec![
        PackedAgain { x: MoreShape::Box(item(1)) },
        PackedAgain { x: MoreShape::Bag { litres: i64::MAX } },
        PackedAgain { x: MoreShape::Tube },
    ];
    Untagged: { x: Loose } = vec![
        Untagged { x: Loose::Number(1) },
        Untagged { x: Loose::Text("x".to_owned()) },
        Untagged { x: Loose::Item(item(1)) },
    ];
    Linked: { x: Node } = vec![
        Linked { x: Node { value: 1, next: Some(Box::new(Node { value: 2, next: None })) } },
    ];
    LinkedAgain: { x: WideNode } = vec![
        LinkedAgain { x: WideNode { value: 1, others: vec![], next: None } },
        LinkedAgain { x: WideNode {
            value: i64::MAX,
            others: vec![WideNode { value: 3, others: vec![], next: None }],
            next: None,
        } },
    ];
    Flattened: { x: Flat } = vec![Flattened { x: Flat {
        id: 1,
        payment: Payment::Credit(2),
        rest: [("more".to_owned(), json!(1))].into(),
    } }];
    Adjoined: { x: Adjacent } = vec![Adjoined { x: Adjacent::Cash }, Adjoined { x: Adjacent::Card(1) }];
    AdjoinedBare: { x: AdjacentBare }
        = vec![AdjoinedBare { x: AdjacentBare::Cash }, AdjoinedBare { x: AdjacentBare::Card }];
    Encoded: { x: Size } = vec![Encoded { x: Size { value: 1 } }];
    EncodedAndMaybe: { x: Size, #[serde(default)] y: Option<u8> }
        = vec![EncodedAndMaybe { x: Size { value: 1 }, y: None }];
    EncodedInWords: { x: SizeInWords } = vec![EncodedInWords { x: SizeInWords { value: "x".to_owned() } }];
    Secret: { x: Sealed<String> }
        = vec![Secret { x: format!("sealed:1:{}:a", "A".repeat(56)).parse().unwrap() }];
    Strict #[serde(deny_unknown_fields)]: { x: String } = vec![Strict { x: "s".to_owned() }];
    TextAndMore: { x: String, y: u8 } = vec![TextAndMore { x: "x".to_owned(), y: 1 }];
    TextAndMaybe: { x: String, #[serde(default)] y: Option<u8> }
        = vec![TextAndMaybe { x: "x".to_owned(), y: Some(1) }, TextAndMaybe { x: "x".to_owned(), y: None }];
    FlattenedAndMaybe: { x: Flat, #[serde(default)] y: Option<u8> } = vec![FlattenedAndMaybe {
        x: Flat { id: 1, payment: Payment::Cash, rest: HashMap::new() },
        y: None,
    }];
}

#[test]
fn definitions_are_kept_whatever_they_are_called() {
    let schema = only::<Encoded>();
    let size = &schema.written["$defs"]["Größe ~ 1/m"];
    assert_eq!(size["properties"]["value"]["type"], "integer");
    assert_ne!(schema.written, only::<EncodedInWords>().written);
}

/// Of all pairs: what one release is said to read, it reads; and what is known to be readable is not
/// refused.
#[test]
fn what_is_called_compatible_is_read_by_serde() {
    let all = releases();
    let mut readable = Vec::new();
    for old in &all {
        for new in &all {
            let problems = new.schema.refuses(&old.schema);
            if !problems.is_empty() {
                assert_ne!(old.name, new.name, "{problems:?}");
                continue;
            }
            for payload in &old.wrote {
                assert!(
                    (new.reads)(payload),
                    "{} is said to read {}, and does not: {payload}",
                    new.name,
                    old.name
                );
            }
            if old.name != new.name {
                readable.push((old.name, new.name));
            }
        }
    }
    let expected = [
        // A field that may be absent, or is not looked at.
        ("Empty", "OptionalText"),
        ("Empty", "OmittedText"),
        ("Empty", "DefaultText"),
        ("Text", "Empty"),
        ("Text", "OptionalText"),
        ("Text", "DefaultText"),
        ("Text", "Strict"),
        ("Text", "TextAndMaybe"),
        ("DefaultText", "Text"),
        ("OptionalText", "OmittedText"),
        ("OmittedText", "OptionalText"),
        ("TextAndMore", "TextAndMaybe"),
        ("TextAndMore", "Text"),
        ("TextAndMaybe", "Text"),
        ("Strict", "TextAndMaybe"),
        // Wider types.
        ("Character", "Text"),
        ("Moment", "Text"),
        ("Identity", "OptionalText"),
        ("Small", "Signed"),
        ("Small", "Large"),
        ("Small", "Double"),
        ("Signed", "Double"),
        ("Small", "Single"),
        ("Single", "Double"),
        ("Truth", "Anything"),
        ("Nothing", "OptionalText"),
        ("Three", "Bytes"),
        ("Couple", "Bytes"),
        ("Distinct", "Bytes"),
        ("Numbered", "Named"),
        ("One", "Anything"),
        // Variants.
        ("Paid", "PaidAgain"),
        ("Packed", "PackedAgain"),
        ("Text", "Untagged"),
        ("One", "Untagged"),
        ("Linked", "LinkedAgain"),
        ("Encoded", "EncodedAndMaybe"),
        ("Secret", "Text"),
        // What cannot be compared, and is the same.
        ("Flattened", "FlattenedAndMaybe"),
        ("FlattenedAndMaybe", "Flattened"),
    ];
    for (old, new) in expected {
        assert!(
            readable.contains(&(old, new)),
            "{new} reads {old}, and is said not to"
        );
    }
    for (old, new) in [
        ("Empty", "Text"),
        ("Text", "Secret"),
        ("Encoded", "EncodedInWords"),
        ("Adjoined", "AdjoinedBare"),
        ("Text", "Moment"),
        ("Text", "Character"),
        ("OptionalText", "Text"),
        ("OmittedText", "Text"),
        ("TextAndMore", "Strict"),
        ("Text", "TextAndMore"),
        ("Signed", "Small"),
        ("Signed", "Large"),
        ("Large", "Signed"),
        ("Large", "Double"),
        ("Signed", "Single"),
        ("Double", "Single"),
        ("Double", "Signed"),
        ("Anything", "Text"),
        ("Bytes", "Three"),
        ("Bytes", "Distinct"),
        ("Three", "Couple"),
        ("Named", "Numbered"),
        ("Named", "One"),
        ("PaidAgain", "Paid"),
        ("PackedAgain", "Packed"),
        ("Untagged", "Text"),
        ("LinkedAgain", "Linked"),
        ("Flattened", "Paid"),
        ("Paid", "Flattened"),
    ] {
        assert!(!readable.contains(&(old, new)), "{new} does not read {old}");
    }
}

#[test]
fn reasons_name_the_place() {
    let reasons = |new: EventSchema, old: EventSchema| {
        let reasons = new.refuses(&old).into_iter();
        reasons.map(|reason| reason.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(only::<TextAndMore>(), only::<Text>()),
        ["`y` is required, and not always written"]
    );
    assert_eq!(
        reasons(only::<Signed>(), only::<Text>()),
        ["`x` may be a string, and only an integer from -2147483648 to 2147483647 is accepted"]
    );
    assert_eq!(
        reasons(only::<Paid>(), only::<PaidAgain>()),
        [
            "`x` may be \"Barter\", and only \"Cash\" or an object with Card or an object with Credit is accepted",
            "`x.Credit` may be an integer from 0 to 65535, and only an integer from 0 to 255 is accepted",
        ]
    );
    assert_eq!(
        reasons(only::<Strict>(), only::<TextAndMore>()),
        ["`y` is written, and unknown fields are denied"]
    );
    assert_eq!(
        reasons(only::<Couple>(), only::<Three>()),
        ["`x` has 3 items, and 2 are accepted"]
    );
    assert_eq!(
        reasons(only::<Linked>(), only::<LinkedAgain>()),
        ["`x.next.value`", "`x.value`"].map(|place| format!(
            "{place} may be an integer from -9223372036854775808 to 9223372036854775807, and only an integer from -2147483648 to 2147483647 is accepted"
        ))
    );
    let opaque = reasons(only::<Flattened>(), only::<Paid>());
    assert_eq!(opaque.len(), 3, "one for each variant: {opaque:?}");
    for reason in opaque {
        assert!(
            reason.contains("only something that cannot be compared"),
            "{reason}"
        );
    }
}

// Files.

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn files(&self) -> SchemaFiles {
        SchemaFiles::new(&self.0)
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(&self.0).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.0.join(name)).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const FILE: &str = "order.placed.v1.json";

#[test]
fn a_release_is_recorded_and_then_held_to() {
    let folder = Folder::new("schemas_recorded");
    let all = schemas::<Text>().with::<Dug>().unwrap();
    let text = complaint(|| {
        folder.files().check(&all, Compatibility::Full);
    });
    assert!(text.contains("GOLDEN=release"), "{text}");
    assert!(!folder.0.exists());

    let recorded = folder.files().recording().check(&all, Compatibility::Full);
    assert_eq!(recorded, [FILE, "tree.dug.v1.json"]);
    assert_eq!(folder.names(), [FILE, "tree.dug.v1.json"]);
    let file = folder.read(FILE);
    let schema = only::<Text>();
    assert_eq!(
        file,
        json!({"schemas": [{
            "id": schema.content_id(),
            "written": schema.written,
            "read": schema.read,
        }]})
    );
    let nothing: [String; 0] = [];
    assert_eq!(folder.files().check(&all, Compatibility::Full), nothing);

    // A change that both sides can live with is for the next release to record.
    let next = schemas::<TextAndMaybe>().with::<Dug>().unwrap();
    assert_eq!(folder.files().check(&next, Compatibility::Full), [FILE]);
    assert_eq!(folder.read(FILE), file);
    assert_eq!(
        folder.files().recording().check(&next, Compatibility::Full),
        [FILE]
    );
    assert_eq!(folder.files().check(&next, Compatibility::Full), nothing);
    let both = folder.read(FILE);
    assert_eq!(both["schemas"].as_array().unwrap().len(), 2);
    assert_eq!(both["schemas"][0], file["schemas"][0]);

    // One that comes back is not there twice.
    assert_eq!(
        folder.files().recording().check(&all, Compatibility::Full),
        [FILE]
    );
    let back = folder.read(FILE);
    assert_eq!(back["schemas"][1], file["schemas"][0]);
    assert_eq!(back["schemas"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_not_compatible_is_refused_and_not_recorded() {
    let folder = Folder::new("schemas_refused");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let before = folder.read(FILE);
    let text = complaint(|| {
        let files = folder.files().recording();
        files.check(
            &schemas::<TextAndMore>().with::<Dug>().unwrap(),
            Compatibility::Full,
        );
    });
    assert_eq!(
        text,
        "order.placed v1 is not backward compatible: payloads in the log are not read by the code
  `y` is required, and not always written
  give it a new version, and lift the payloads of the old one: #[event(version = 2, upcast(1 = ...))]"
    );
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<OptionalText>(), Compatibility::Full);
    });
    assert_eq!(
        text,
        "order.placed v1 is not forward compatible: what the code writes is not read by the last release
  `x` may be null, and only a string is accepted
  give it a new version, and lift the payloads of the old one: #[event(version = 2, upcast(1 = ...))]"
    );
    let both = complaint(|| {
        folder
            .files()
            .check(&schemas::<Small>(), Compatibility::Full);
    });
    assert!(
        both.contains("is not backward") && both.contains("is not forward"),
        "{both}"
    );
    assert_eq!((folder.read(FILE), folder.names().len()), (before, 1));
}

/// Each direction alone.
#[test]
fn a_direction_is_checked_where_it_is_asked_for() {
    let folder = Folder::new("schemas_directions");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let passes = |of: &EventSchemas, compatibility| {
        catch_unwind(AssertUnwindSafe(|| folder.files().check(of, compatibility))).is_ok()
    };
    let wider = schemas::<OptionalText>();
    assert!(passes(&wider, Compatibility::Backward));
    assert!(!passes(&wider, Compatibility::Forward));
    let narrower = schemas::<TextAndMore>();
    assert!(!passes(&narrower, Compatibility::Backward));
    assert!(passes(&narrower, Compatibility::Forward));
}

/// A field that goes, and comes back as something else, is in the log as what it was first.
#[test]
fn all_that_was_ever_written_under_a_version_is_read() {
    let folder = Folder::new("schemas_transitive");
    let backward = Compatibility::Backward;
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), backward);
    folder
        .files()
        .recording()
        .check(&schemas::<Empty>(), backward);

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Back {
        #[serde(default)]
        x: Option<u8>,
    }
    assert!(only::<Back>().refuses(&only::<Empty>()).is_empty());
    let text = complaint(|| {
        folder.files().check(&schemas::<Back>(), backward);
    });
    assert!(text.contains("`x` may be a string"), "{text}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Lifted {
    #[event(version = 2, upcast(1 = counted))]
    Placed { x: String, y: u8 },
}

fn counted(mut old: Value) -> Value {
    old["y"] = 1.into();
    old
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Unlifted {
    #[event(version = 2, since = 2)]
    Placed { x: String, y: u8 },
}

#[test]
fn an_upcaster_makes_a_new_version_readable() {
    let folder = Folder::new("schemas_lifted");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let name = "order.placed.v2.json";
    assert_eq!(
        folder
            .files()
            .check(&schemas::<Lifted>(), Compatibility::Full),
        [name]
    );
    let files = folder.files().recording();
    assert_eq!(
        files.check(&schemas::<Lifted>(), Compatibility::Full),
        [name]
    );
    assert_eq!(folder.names(), [FILE, name]);

    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<Unlifted>(), Compatibility::Full);
    });
    assert!(text.contains("order.placed v1"), "{text}");
    assert!(text.contains("nothing lifts it"), "{text}");
    // The code before it cannot read the new one.
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<Text>(), Compatibility::Full);
    });
    assert!(
        text.contains("has schema version 2, the code has 1"),
        "{text}"
    );
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Renamed {
    #[event(was("order.placed"))]
    Ordered { x: Option<String> },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum WronglyRenamed {
    #[event(was("order.placed"))]
    Ordered { x: u8 },
}

#[test]
fn a_renamed_event_type_reads_what_it_wrote_before() {
    let folder = Folder::new("schemas_renamed");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    // Nobody who knows the former name reads the new one, so there is nothing to compare forward.
    assert_eq!(
        folder
            .files()
            .check(&schemas::<Renamed>(), Compatibility::Full),
        ["order.ordered.v1.json"]
    );
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<WronglyRenamed>(), Compatibility::Full);
    });
    assert!(
        text.starts_with("order.placed v1 is not backward"),
        "{text}"
    );
    let text = complaint(|| {
        folder.files().check(&schemas::<Dug>(), Compatibility::Full);
    });
    assert!(text.contains("#[event(was(\"order.placed\"))]"), "{text}");
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = Folder::new("schemas_damaged");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    for (name, content, says) in [
        ("order.json", "{}", "order.json: "),
        (FILE, "{", FILE),
        (FILE, r#"{"schemas": []}"#, "it has no schema"),
        (FILE, r#"{"schemas": [], "more": 1}"#, "unknown field"),
    ] {
        let path = folder.0.join(name);
        fs::write(&path, content).unwrap();
        let text = complaint(|| {
            folder
                .files()
                .check(&schemas::<Text>(), Compatibility::Full);
        });
        assert!(text.contains(says), "{text}");
        fs::remove_file(path).unwrap();
    }
}

// Ids.

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
