//! The JSON schemas of this crate's own types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use uuid::Uuid;

use crate::context::TenantId;
use crate::id::Id;

/// That of a UUID.
impl<T: ?Sized> JsonSchema for Id<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Uuid::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        Uuid::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Uuid::json_schema(generator)
    }
}

/// That of a string of its own kind: not each string is a tenant.
impl JsonSchema for TenantId {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TenantId".into()
    }

    fn schema_id() -> Cow<'static, str> {
        "cqrs_core::TenantId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "tenant-id"})
    }
}

/// That of its text, with that of what is in it: no upcaster reaches what is sealed, so a release that
/// cannot read it is to be found before.
#[cfg(feature = "sealed")]
impl<T: JsonSchema> JsonSchema for crate::sealed::Sealed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Sealed_{}", T::schema_name()).into()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("cqrs_core::sealed::Sealed<{}>", T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "sealed",
            "contentSchema": generator.subschema_for::<T>(),
        })
    }
}
