//! The payload of one event in many releases, with what each of them wrote.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use cqrs_core::DomainEvent;
use cqrs_core::schema::EventSchema;
use cqrs_core::sealed::Sealed;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::only;

/// The payload of one event in several releases: its type, and values of it.
macro_rules! releases {
    ($($name:ident $(#[$attribute:meta])*: { $($field:tt)* } = $values:expr;)*) => {
        $(
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, DomainEvent)]
            #[event(aggregate = "order", name = "order.placed")]
            $(#[$attribute])*
            pub(crate) struct $name { $($field)* }
        )*

        /// Each release: its name, its schema, what it wrote, and whether it reads a payload.
        pub(crate) fn releases() -> Vec<Release> {
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

pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) schema: EventSchema,
    pub(crate) wrote: Vec<String>,
    pub(crate) reads: fn(&str) -> bool,
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

/// As that of `rust_decimal`: what it writes has a narrower pattern than what it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct Decimal(String);

impl TryFrom<Value> for Decimal {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = match value {
            Value::String(text) => text,
            value => value.to_string(),
        };
        match text.parse::<f64>() {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(format!("{text} is no number")),
        }
    }
}

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match generator.contract().is_serialize() {
            true => json_schema!({"type": "string", "pattern": r"^-?\d+(\.\d+)?$"}),
            false => json_schema!({
                "type": ["string", "number"],
                "pattern": r"^-?\d+(\.\d+)?([eE]\d+)?$",
            }),
        }
    }
}

pub(crate) fn decimal() -> Decimal {
    Decimal("12.50".to_owned())
}

/// Types with names that others have too, as those of other modules have: schemas number them in the
/// order in which they come to them.
macro_rules! named {
    ($($type:ident($content:ty) is $name:literal;)*) => {$(
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $type(pub(crate) $content);

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn schema_id() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                <$content>::json_schema(generator)
            }
        }
    )*};
}

named! {
    Amount(Decimal) is "Amount";
    Sum(Decimal) is "Sum";
    Letters(Word) is "Amount";
    FirstForm(Word) is "Form1";
    SecondForm(Decimal) is "Form2";
}

/// Written in small letters, and read in any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Word(String);

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.chars().all(|letter| letter.is_ascii_alphabetic()) {
            true => Ok(Self(text.to_lowercase())),
            false => Err(format!("{text} is no word")),
        }
    }
}

impl JsonSchema for Word {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match generator.contract().is_serialize() {
            true => json_schema!({"type": "string", "pattern": "^[a-z]*$"}),
            false => json_schema!({"type": "string", "pattern": "^[A-Za-z]*$"}),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum LooseAmount {
    Amount(Amount),
    Shape(Shape),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum LooseCharge {
    Named { label: String },
    Fixed { amount: Decimal },
}

/// What cannot be compared, and refers to a type by its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Wrapping {
    id: u8,
    #[serde(flatten)]
    content: Wrapped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
enum Wrapped {
    Nothing,
    Item { item: Item },
}

/// The same under other names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Packing {
    id: u8,
    #[serde(flatten)]
    content: InPaper,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
enum InPaper {
    Nothing,
    Item { item: Article },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Article {
    article: String,
    pieces: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
enum Price {
    Fixed { amount: Decimal },
    Free,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
#[schemars(rename = "Price")]
enum MorePrice {
    Bargain {
        amount: Decimal,
    },
    Fixed {
        amount: Decimal,
        #[serde(default)]
        discount: Option<Decimal>,
    },
    Free,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Colour")]
enum MoreColour {
    Blue,
    Green,
    Red,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum LooseMap {
    Named(BTreeMap<String, u8>),
    Coloured(HashMap<Colour, String>),
    Text(String),
}

/// Written and read as something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "(i32, i32)", into = "(i32, i32)")]
struct Span {
    from: i32,
    length: i32,
}

impl TryFrom<(i32, i32)> for Span {
    type Error = String;

    fn try_from((from, to): (i32, i32)) -> Result<Self, String> {
        let length = to.wrapping_sub(from);
        Ok(Self { from, length })
    }
}

impl From<Span> for (i32, i32) {
    fn from(span: Span) -> Self {
        (span.from, span.from.wrapping_add(span.length))
    }
}

/// Reads more than it writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Option<String>", into = "String")]
struct Remark(String);

impl TryFrom<Option<String>> for Remark {
    type Error = String;

    fn try_from(text: Option<String>) -> Result<Self, String> {
        Ok(Self(text.unwrap_or_default()))
    }
}

impl From<Remark> for String {
    fn from(remark: Remark) -> Self {
        remark.0
    }
}

fn item(pieces: u32) -> Item {
    let article = "nut".to_owned();
    Item { article, pieces }
}

releases! {
    Empty: {} = vec![Empty {}];
    Text: { pub(crate) x: String } = vec![Text { x: "x".to_owned() }, Text { x: String::new() }];
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
    Priced: { x: Decimal } = vec![Priced { x: decimal() }];
    PricedAndMaybe: { x: Option<Decimal>, #[serde(default)] y: Vec<Decimal> }
        = vec![PricedAndMaybe { x: None, y: vec![decimal()] }];
    Charged: { x: Price } = vec![Charged { x: Price::Free }, Charged { x: Price::Fixed { amount: decimal() } }];
    ChargedAgain: { x: MorePrice } = vec![
        ChargedAgain { x: MorePrice::Free },
        ChargedAgain { x: MorePrice::Bargain { amount: decimal() } },
        ChargedAgain { x: MorePrice::Fixed { amount: decimal(), discount: Some(decimal()) } },
    ];
    Amounted: { #[serde(default, skip_serializing)] gone: Option<Letters>, x: Amount }
        = vec![Amounted { gone: None, x: Amount(decimal()) }];
    AmountedAndMaybe: { #[serde(default, skip_serializing)] gone: Option<Letters>, x: Amount, #[serde(default)] y: Option<Amount> }
        = vec![AmountedAndMaybe { gone: None, x: Amount(decimal()), y: Some(Amount(decimal())) }];
    Summed: { x: Sum, #[serde(default)] y: Option<Sum> } = vec![Summed { x: Sum(decimal()), y: None }];
    Lettered: { x: Letters } = vec![Lettered { x: Letters(word()) }];
    UntaggedAmount: { x: LooseAmount }
        = vec![UntaggedAmount { x: LooseAmount::Amount(Amount(decimal())) }];
    UntaggedAmountAndMaybe: { x: LooseAmount, #[serde(default)] y: Option<u8> }
        = vec![UntaggedAmountAndMaybe { x: LooseAmount::Amount(Amount(decimal())), y: None }];
    UntaggedSecond: { #[serde(default, skip_serializing)] gone: Option<Letters>, x: LooseAmount }
        = vec![UntaggedSecond { gone: None, x: LooseAmount::Amount(Amount(decimal())) }];
    UntaggedSecondAndMaybe: { #[serde(default, skip_serializing)] gone: Option<Letters>, x: LooseAmount, #[serde(default)] y: Option<u8> }
        = vec![UntaggedSecondAndMaybe { gone: None, x: LooseAmount::Amount(Amount(decimal())), y: None }];
    UntaggedCharge: { x: LooseCharge }
        = vec![UntaggedCharge { x: LooseCharge::Fixed { amount: decimal() } }];
    UntaggedChargeAndMaybe: { x: LooseCharge, #[serde(default)] y: Option<u8> }
        = vec![UntaggedChargeAndMaybe { x: LooseCharge::Fixed { amount: decimal() }, y: None }];
    Wrapper: { x: Wrapping } = vec![
        Wrapper { x: Wrapping { id: 1, content: Wrapped::Nothing } },
        Wrapper { x: Wrapping { id: 1, content: Wrapped::Item { item: item(1) } } },
    ];
    Packer: { x: Packing, #[serde(default)] y: Option<u8> } = vec![Packer {
        x: Packing {
            id: 1,
            content: InPaper::Item { item: Article { article: "nut".to_owned(), pieces: 2 } },
        },
        y: None,
    }];
    Coloured: { x: HashMap<Colour, u8> }
        = vec![Coloured { x: [(Colour::Red, 1), (Colour::Green, 2)].into() }];
    ColouredAgain: { x: HashMap<MoreColour, u16> }
        = vec![ColouredAgain { x: [(MoreColour::Blue, 300), (MoreColour::Red, 1), (MoreColour::Green, 2)].into() }];
    UntaggedMap: { x: LooseMap } = vec![
        UntaggedMap { x: LooseMap::Named([("a".to_owned(), 1)].into()) },
        UntaggedMap { x: LooseMap::Coloured([(Colour::Red, "r".to_owned())].into()) },
        UntaggedMap { x: LooseMap::Text("x".to_owned()) },
    ];
    Spanned: { x: Span } = vec![Spanned { x: Span { from: 1, length: 2 } }];
    SpannedAgain: { x: Span, #[serde(default)] y: Option<u8> }
        = vec![SpannedAgain { x: Span { from: 1, length: 2 }, y: None }];
    Remarked: { x: Remark } = vec![Remarked { x: Remark("x".to_owned()) }];
    FlattenedAndMaybe: { x: Flat, #[serde(default)] y: Option<u8> } = vec![FlattenedAndMaybe {
        x: Flat { id: 1, payment: Payment::Cash, rest: HashMap::new() },
        y: None,
    }];
}

pub(crate) fn word() -> Word {
    Word("x".to_owned())
}

pub(crate) fn letters() -> Letters {
    Letters(word())
}
