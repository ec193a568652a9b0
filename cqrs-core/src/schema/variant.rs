//! What serde's derive made of a variant, asked without a value of it.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use crate::event::DomainEvent;

/// What the payload of an event type is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// `{}`.
    Unit,
    /// The one field.
    Newtype,
    /// An array.
    Tuple,
    /// An object.
    Struct,
}

/// A variant as serde knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    /// `None` of a struct, which is no variant.
    pub(super) name: Option<&'static str>,
    pub(super) content: Content,
}

/// The variant at this position; `None` where the event is no plain enum or struct.
pub(super) fn variant<E: DomainEvent>(index: usize) -> Option<Variant> {
    let mut found = None;
    let probe = Probe {
        index,
        types: E::EVENT_TYPES.len(),
        found: &mut found,
    };
    // It ends with an error in any case: there is nothing to read.
    let _ = E::deserialize(probe);
    found
}

#[derive(Debug)]
struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no value")
    }
}

impl std::error::Error for Done {}

impl de::Error for Done {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Probe<'p> {
    index: usize,
    types: usize,
    found: &'p mut Option<Variant>,
}

impl Probe<'_> {
    fn of_struct<T>(self, content: Content) -> Result<T, Done> {
        *self.found = Some(Variant {
            name: None,
            content,
        });
        Err(Done)
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Done;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Done> {
        Err(Done)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Done> {
        let name = match variants.len() == self.types {
            true => variants.get(self.index).copied(),
            false => None,
        };
        visitor.visit_enum(Chosen {
            name: name.ok_or(Done)?,
            index: u32::try_from(self.index).map_err(|_| Done)?,
            found: self.found,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Done> {
        self.of_struct(Content::Struct)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Done> {
        self.of_struct(Content::Newtype)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Done> {
        self.of_struct(Content::Tuple)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Done> {
        self.of_struct(Content::Unit)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit seq tuple map identifier ignored_any
    }
}

struct Chosen<'p> {
    name: &'static str,
    index: u32,
    found: &'p mut Option<Variant>,
}

impl Chosen<'_> {
    fn is<T>(self, content: Content) -> Result<T, Done> {
        *self.found = Some(Variant {
            name: Some(self.name),
            content,
        });
        Err(Done)
    }
}

impl<'de> EnumAccess<'de> for Chosen<'_> {
    type Error = Done;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Done> {
        let index: U32Deserializer<Done> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_> {
    type Error = Done;

    fn unit_variant(self) -> Result<(), Done> {
        self.is(Content::Unit)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Done> {
        self.is(Content::Newtype)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Done> {
        self.is(Content::Tuple)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Done> {
        self.is(Content::Struct)
    }
}
