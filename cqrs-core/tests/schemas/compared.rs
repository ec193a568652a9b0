//! What one release wrote, and another reads.

use std::collections::BTreeMap;

use cqrs_core::DomainEvent;
use cqrs_core::schema::EventSchema;
use cqrs_core::sealed::Sealed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::only;
use crate::releases::*;

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
        // What reads more than it writes.
        ("Priced", "PricedAndMaybe"),
        ("Priced", "Text"),
        ("Charged", "ChargedAgain"),
        ("Remarked", "OptionalText"),
        ("OptionalText", "Remarked"),
        // Keys and containers.
        ("Coloured", "ColouredAgain"),
        ("Coloured", "Named"),
        ("Named", "UntaggedMap"),
        ("Numbered", "UntaggedMap"),
        ("Text", "UntaggedMap"),
        ("Spanned", "SpannedAgain"),
        ("SpannedAgain", "Spanned"),
        // Types whose names others have, or did not have.
        ("Amounted", "AmountedAndMaybe"),
        ("AmountedAndMaybe", "Amounted"),
        ("Amounted", "Summed"),
        ("Summed", "AmountedAndMaybe"),
        ("Amounted", "UntaggedAmount"),
        // Variants that are found again by the name of their type, which has a number in one schema
        // alone, or by their fields.
        ("UntaggedAmount", "UntaggedAmountAndMaybe"),
        ("UntaggedSecond", "UntaggedSecondAndMaybe"),
        ("UntaggedCharge", "UntaggedChargeAndMaybe"),
        ("Wrapper", "Packer"),
        ("Packer", "Wrapper"),
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
        ("Text", "Priced"),
        ("PricedAndMaybe", "Priced"),
        ("ChargedAgain", "Charged"),
        ("ColouredAgain", "Coloured"),
        ("Named", "Coloured"),
        ("UntaggedMap", "Named"),
        ("Three", "Spanned"),
        ("OptionalText", "Text"),
        ("Amounted", "Lettered"),
        ("Lettered", "Summed"),
        ("UntaggedAmount", "Amounted"),
    ] {
        assert!(!readable.contains(&(old, new)), "{new} does not read {old}");
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum LooseNumbers {
    Numbered(BTreeMap<u32, u8>),
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8")]
struct Percent(u8);

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        match percent {
            0..=100 => Ok(Self(percent)),
            _ => Err("more than all".to_owned()),
        }
    }
}

/// What the page on schemas says that they do not show.
#[test]
fn what_a_schema_does_not_say_is_not_seen() {
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct UntaggedNumbers {
        x: LooseNumbers,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Checked {
        x: Percent,
    }
    assert!(
        only::<UntaggedNumbers>()
            .refuses(&only::<Numbered>())
            .is_empty()
    );
    let unread = serde_json::from_value::<UntaggedNumbers>(json!({"x": {"7": 1}}));
    assert!(unread.is_err(), "{unread:?}");
    assert!(only::<Checked>().refuses(&only::<Small>()).is_empty());
    let unread = serde_json::from_value::<Checked>(json!({"x": 101}));
    assert!(unread.is_err(), "{unread:?}");
}

/// Each side leaves out another variant, so that those in the same place are not the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum HalfSkipped {
    #[serde(skip_serializing)]
    Read(Letters),
    #[serde(skip_deserializing)]
    Written(Sum),
}

#[test]
fn variants_in_the_same_place_are_no_pair() {
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Counted {
        half: Option<HalfSkipped>,
        x: Sum,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Spelled {
        half: Option<HalfSkipped>,
        x: Letters,
    }
    let refused = only::<Spelled>().refuses(&only::<Counted>());
    assert!(
        refused.iter().any(|refused| refused.path == "x"),
        "{refused:?}"
    );
    let x = Sum(decimal());
    let written = serde_json::to_string(&Counted { half: None, x }).unwrap();
    let unread = serde_json::from_str::<Spelled>(&written);
    assert!(unread.is_err(), "{unread:?}");
    let read: Spelled = serde_json::from_str(r#"{"half": "x", "x": "x"}"#).unwrap();
    assert_eq!(read.half, Some(HalfSkipped::Read(letters())));
    assert_eq!(
        serde_json::to_string(&HalfSkipped::Written(Sum(decimal()))).unwrap(),
        "\"12.50\""
    );
}

/// As above, where what is behind the names is a number.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "its schema is what counts")]
enum HalfNumbered {
    #[serde(skip_serializing)]
    Read(FirstForm),
    #[serde(skip_deserializing)]
    Written(SecondForm),
}

#[test]
fn types_whose_names_end_with_other_numbers_are_no_pair() {
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Counted {
        half: Option<HalfNumbered>,
        x: SecondForm,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Spelled {
        half: Option<HalfNumbered>,
        x: FirstForm,
    }
    let refused = only::<Spelled>().refuses(&only::<Counted>());
    assert!(
        refused.iter().any(|refused| refused.path == "x"),
        "{refused:?}"
    );
    let x = SecondForm(decimal());
    let written = serde_json::to_string(&Counted { half: None, x }).unwrap();
    let unread = serde_json::from_str::<Spelled>(&written);
    assert!(unread.is_err(), "{unread:?}");
}

/// Two variants with the same fields, one of which is read alone.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "its schema is what counts")]
enum SameFields {
    #[serde(skip_serializing)]
    Counted {
        value: Decimal,
    },
    Spelled {
        value: Word,
    },
}

#[test]
fn variants_with_the_same_fields_are_no_pair() {
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Spelled {
        same: Option<SameFields>,
        x: Word,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Counted {
        same: Option<SameFields>,
        x: Decimal,
    }
    let refused = only::<Counted>().refuses(&only::<Spelled>());
    assert!(
        refused.iter().any(|refused| refused.path == "x"),
        "{refused:?}"
    );
    let (same, x) = (None, word());
    let written = serde_json::to_string(&Spelled { same, x }).unwrap();
    let unread = serde_json::from_str::<Counted>(&written);
    assert!(unread.is_err(), "{unread:?}");
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

/// No upcaster reaches what is sealed, so the schema tells.
#[test]
fn what_is_sealed_is_compared() {
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    struct Address {
        street: String,
    }
    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
    struct LongerAddress {
        street: String,
        city: String,
        country: Option<String>,
    }
    macro_rules! moved {
        ($name:ident, $content:ty) => {
            #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
            #[event(aggregate = "order", name = "order.moved")]
            struct $name {
                to: $content,
            }
        };
    }
    moved!(Moved, Sealed<Address>);
    moved!(MovedFurther, Sealed<LongerAddress>);
    moved!(MovedAgain, Option<Sealed<Address>>);
    moved!(MovedInText, Sealed<String>);
    moved!(MovedInClear, String);

    let refused = |new: EventSchema, old: EventSchema| {
        let problems = new.refuses(&old).into_iter();
        problems.map(|problem| problem.to_string()).collect()
    };
    let none: [&str; 0] = [];
    let refused: [Vec<String>; 6] = [
        refused(only::<MovedFurther>(), only::<Moved>()),
        refused(only::<Moved>(), only::<MovedFurther>()),
        refused(only::<MovedAgain>(), only::<Moved>()),
        refused(only::<Moved>(), only::<MovedInText>()),
        refused(only::<Moved>(), only::<MovedInClear>()),
        refused(only::<MovedInClear>(), only::<Moved>()),
    ];
    assert_eq!(
        refused[0],
        ["`to<>.city` is required, and not always written"]
    );
    assert_eq!(refused[1], none);
    assert_eq!(refused[2], none);
    assert_eq!(
        refused[3],
        ["`to<>` may be a string, and only an object with street is accepted"]
    );
    assert_eq!(
        refused[4],
        ["`to` may be a string, and only a string (sealed) is accepted"]
    );
    assert_eq!(refused[5], none);
}
