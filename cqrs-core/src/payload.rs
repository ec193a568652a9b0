//! The payload of an event: what the log stores of an enum's variant, and how it comes back.
//!
//! serde would write `{"Dispatched": {"driver": "Kim"}}`. The log holds `{"driver": "Kim"}`: the
//! variant is already in the event type, and its name in the code may then change. Nothing is
//! generated for this; two small adapters stand between the enum's own serde derives and JSON.

use std::fmt::Write as _;

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, EnumAccess, IgnoredAny, IntoDeserializer, VariantAccess,
    Visitor,
};
use serde::{Deserializer, Serialize, Serializer, forward_to_deserialize_any, ser};
use serde_json::Value;

use crate::event::DomainEvent;
use crate::upcast;

/// Why a payload could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The log holds an event type that the code does not know.
    #[error("unknown event type {event_type:?} of aggregate {aggregate_type:?}")]
    UnknownEventType {
        /// The aggregate type whose events were read.
        aggregate_type: &'static str,
        /// The event type found.
        event_type: String,
    },
    /// The log holds a younger version of the payload's schema than the code.
    #[error("event type {event_type:?} has schema version {found}, the code has {expected}")]
    SchemaVersion {
        /// The event type.
        event_type: String,
        /// The version in the code.
        expected: u32,
        /// The version in the log.
        found: u32,
    },
    /// The log holds an older version of the payload's schema, and nothing lifts it.
    #[error(
        "event type {event_type:?} has schema version {from}, the code has {expected}, and nothing lifts it: write `#[event(upcast({from} = ...))]`"
    )]
    NoUpcaster {
        /// The event type.
        event_type: String,
        /// The version that nothing lifts.
        from: u32,
        /// The version in the code.
        expected: u32,
    },
    /// The payload does not fit the event.
    #[error("payload of event type {event_type:?}: {reason}")]
    Malformed {
        /// The event type.
        event_type: String,
        /// What serde says.
        reason: String,
    },
    /// The payload is not the one that was written, by its [hash](crate::ContentHash). It is looked
    /// for where a store is told to compare them.
    #[error("payload of event type {event_type:?} was altered: {reason}")]
    Altered {
        /// The event type.
        event_type: String,
        /// What speaks against it.
        reason: String,
    },
}

/// The canonical JSON of an event's payload.
///
/// # Errors
///
/// [`PayloadError::Malformed`] where serde cannot represent it.
pub(crate) fn encode<E: DomainEvent>(event: &E) -> Result<String, PayloadError> {
    event
        .serialize(PayloadSerializer)
        .map(|value| canonical_json(&value))
        .map_err(|error| PayloadError::Malformed {
            event_type: event.event_type().name.to_owned(),
            reason: error.to_string(),
        })
}

/// Reads an event back from its type, schema version and payload.
///
/// # Errors
///
/// As in [`PayloadError`].
pub(crate) fn decode<E: DomainEvent>(
    event_type: &str,
    schema_version: u32,
    payload: &str,
) -> Result<E, PayloadError> {
    let Some(variant) = upcast::variant_of::<E>(event_type) else {
        return Err(unknown::<E>(event_type));
    };
    let decoded = if schema_version == E::EVENT_TYPES[variant].schema_version {
        let mut content = serde_json::Deserializer::from_str(payload);
        let decoded = E::deserialize(PayloadDeserializer {
            variant,
            content: &mut content,
        });
        decoded.and_then(|event| content.end().map(|()| event))
    } else {
        let content = upcast::lifted::<E>(variant, schema_version, payload)?;
        E::deserialize(PayloadDeserializer { variant, content })
    };
    decoded.map_err(|error| PayloadError::Malformed {
        event_type: event_type.to_owned(),
        reason: error.to_string(),
    })
}

/// The error of an event type that the code does not know.
pub(crate) fn unknown<E: DomainEvent>(event_type: &str) -> PayloadError {
    PayloadError::UnknownEventType {
        aggregate_type: E::AGGREGATE_TYPE,
        event_type: event_type.to_owned(),
    }
}

/// The canonical text of a JSON value: no white space, object keys sorted by their UTF-8 bytes,
/// numbers and strings as `serde_json` writes them.
///
/// # Example
///
/// ```
/// let value = serde_json::json!({"b": [1.5, null], "a": "x"});
/// assert_eq!(cqrs_core::canonical_json(&value), r#"{"a":"x","b":[1.5,null]}"#);
/// ```
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            // serde_json keeps insertion order where any crate of the build asks for that.
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            text.push('{');
            for (index, (key, item)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_scalar(&Value::String(key.clone()), text);
                text.push(':');
                write_canonical(item, text);
            }
            text.push('}');
        }
        scalar => write_scalar(scalar, text),
    }
}

fn write_scalar(value: &Value, text: &mut String) {
    write!(text, "{value}").expect("writing to a String cannot fail");
}

/// Writes an enum's content without its variant; a struct as it is.
struct PayloadSerializer;

type JsonError = serde_json::Error;

fn not_an_event<T>() -> Result<T, JsonError> {
    Err(ser::Error::custom(
        "an event serializes as a plain enum or struct, without serde's tag, content, untagged, from or into",
    ))
}

macro_rules! refuse {
    ($($name:ident($($type:ty),*);)*) => {$(
        fn $name(self, $(_: $type),*) -> Result<Value, JsonError> {
            not_an_event()
        }
    )*};
}

impl Serializer for PayloadSerializer {
    type Ok = Value;
    type Error = JsonError;
    type SerializeSeq = ser::Impossible<Value, JsonError>;
    type SerializeTuple = ser::Impossible<Value, JsonError>;
    type SerializeTupleStruct = <serde_json::value::Serializer as Serializer>::SerializeTupleStruct;
    type SerializeTupleVariant = TupleFields;
    type SerializeMap = ser::Impossible<Value, JsonError>;
    type SerializeStruct = <serde_json::value::Serializer as Serializer>::SerializeStruct;
    type SerializeStructVariant = VariantFields;

    refuse! {
        serialize_bool(bool); serialize_i8(i8); serialize_i16(i16); serialize_i32(i32);
        serialize_i64(i64); serialize_u8(u8); serialize_u16(u16); serialize_u32(u32);
        serialize_u64(u64); serialize_f32(f32); serialize_f64(f64); serialize_char(char);
        serialize_str(&str); serialize_bytes(&[u8]); serialize_none(); serialize_unit();
    }

    fn serialize_some<T: ?Sized + Serialize>(self, _: &T) -> Result<Value, JsonError> {
        not_an_event()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, JsonError> {
        Ok(Value::Object(serde_json::Map::new()))
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<Value, JsonError> {
        Ok(Value::Object(serde_json::Map::new()))
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, JsonError> {
        serde_json::to_value(value)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Value, JsonError> {
        serde_json::to_value(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, JsonError> {
        not_an_event()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, JsonError> {
        not_an_event()
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, JsonError> {
        serde_json::value::Serializer.serialize_tuple_struct(name, len)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, JsonError> {
        serde_json::value::Serializer
            .serialize_tuple_struct(name, len)
            .map(TupleFields)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, JsonError> {
        not_an_event()
    }

    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, JsonError> {
        serde_json::value::Serializer.serialize_struct(name, len)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, JsonError> {
        serde_json::value::Serializer
            .serialize_struct(name, len)
            .map(VariantFields)
    }
}

struct TupleFields<S = <serde_json::value::Serializer as Serializer>::SerializeTupleStruct>(S);

impl<S: ser::SerializeTupleStruct> ser::SerializeTupleVariant for TupleFields<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_field(value)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

struct VariantFields<S = <serde_json::value::Serializer as Serializer>::SerializeStruct>(S);

impl<S: ser::SerializeStruct> ser::SerializeStructVariant for VariantFields<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), S::Error> {
        self.0.serialize_field(key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

/// Offers a payload to an enum's own `Deserialize` as the content of one known variant.
///
/// The content is text that was not parsed yet, or a value that was lifted.
struct PayloadDeserializer<D> {
    variant: usize,
    content: D,
}

impl<'de, D: Deserializer<'de, Error = JsonError>> Deserializer<'de> for PayloadDeserializer<D> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, JsonError> {
        Err(de::Error::custom(
            "an event deserializes as a plain enum or struct, without serde's tag, content, untagged, from or into",
        ))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_enum(KnownVariant {
            name: variants.get(self.variant).copied(),
            index: self.variant,
            content: self.content,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.content.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.content.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.content.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        IgnoredAny::deserialize(self.content)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit seq
        tuple map identifier ignored_any
    }
}

struct KnownVariant<D> {
    name: Option<&'static str>,
    index: usize,
    content: D,
}

impl<'de, D: Deserializer<'de, Error = JsonError>> EnumAccess<'de> for KnownVariant<D> {
    type Error = JsonError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), JsonError> {
        let variant = match self.name {
            Some(name) => seed.deserialize(StrDeserializer::<JsonError>::new(name))?,
            None => {
                let index = u32::try_from(self.index).map_err(de::Error::custom)?;
                let index: U32Deserializer<JsonError> = index.into_deserializer();
                seed.deserialize(index)?
            }
        };
        Ok((variant, self))
    }
}

impl<'de, D: Deserializer<'de, Error = JsonError>> VariantAccess<'de> for KnownVariant<D> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        IgnoredAny::deserialize(self.content).map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(self.content)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.content.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.content.deserialize_struct("", fields, visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Event {
        Unit,
        Newtype(Vec<u8>),
        Tuple(i32, String),
        #[serde(rename = "a struct")]
        Struct {
            z: f64,
            #[serde(rename = "renamed")]
            a: Option<String>,
        },
    }

    impl DomainEvent for Event {
        const AGGREGATE_TYPE: &'static str = "thing";
        const EVENT_TYPES: &'static [EventType] = &[
            EventType {
                name: "thing.unit",
                schema_version: 1,
            },
            EventType {
                name: "thing.newtype",
                schema_version: 1,
            },
            EventType {
                name: "thing.tuple",
                schema_version: 2,
            },
            EventType {
                name: "thing.struct",
                schema_version: 1,
            },
        ];

        fn variant(&self) -> usize {
            match self {
                Self::Unit => 0,
                Self::Newtype(_) => 1,
                Self::Tuple(..) => 2,
                Self::Struct { .. } => 3,
            }
        }
    }

    #[test]
    fn every_shape_of_variant_comes_back() {
        for (event, payload) in [
            (Event::Unit, "{}"),
            (Event::Newtype(vec![1, 2]), "[1,2]"),
            (Event::Tuple(-1, "x".into()), r#"[-1,"x"]"#),
            (
                Event::Struct { z: 1.5, a: None },
                r#"{"renamed":null,"z":1.5}"#,
            ),
        ] {
            let text = encode(&event).unwrap();
            assert_eq!(text, payload);
            let event_type = event.event_type();
            let back: Event = decode(event_type.name, event_type.schema_version, &text).unwrap();
            assert_eq!(back, event);
        }
    }

    #[test]
    fn what_does_not_fit_says_why() {
        let error = decode::<Event>("thing.gone", 1, "{}").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"unknown event type "thing.gone" of aggregate "thing""#
        );
        let error = decode::<Event>("thing.tuple", 3, "[]").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"event type "thing.tuple" has schema version 3, the code has 2"#
        );
        let error = decode::<Event>("thing.tuple", 1, "[]").unwrap_err();
        assert!(error.to_string().contains("nothing lifts it"), "{error}");
        let error = decode::<Event>("thing.unit", 1, "{} {}").unwrap_err();
        assert!(error.to_string().contains("trailing"), "{error}");
        let error = decode::<Event>("thing.struct", 1, r#"{"z":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("thing.struct"), "{error}");
        assert!(error.to_string().contains("expected f64"), "{error}");
    }

    #[test]
    fn canonical_json_does_not_depend_on_key_order() {
        let one: Value = serde_json::from_str(r#"{"é":1,"a":{"y":1,"x":"\n"}}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a":{"x":"\n","y":1},"é":1}"#).unwrap();
        assert_eq!(canonical_json(&one), r#"{"a":{"x":"\n","y":1},"é":1}"#);
        assert_eq!(canonical_json(&one), canonical_json(&other));
        assert_eq!(
            crate::ContentHash::of("{}").to_string(),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }
}
