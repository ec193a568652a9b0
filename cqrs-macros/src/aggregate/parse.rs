//! From tokens to what the user wrote.

use proc_macro2::Span;
use syn::{Attribute, DeriveInput, Field, Ident, LitStr, Path, Token, Type, Visibility};

use crate::attribute::{crate_path, default_crate, entries, refuse, sql_name, value};
use crate::errors::Errors;
use crate::input::{refuse_generics, struct_fields};
use crate::mapper::{MappedField, named_fields};
use crate::symbol::{
    AGGREGATE, AUDIT, CRATE, EVENT, ID, MAPPER, ROOT, ROW, SOFT_DELETE, TABLE, TENANT,
};
use crate::types;

pub(super) struct Parsed {
    pub(super) vis: Visibility,
    pub(super) ident: Ident,
    pub(super) krate: Path,
    pub(super) table: Option<LitStr>,
    pub(super) event: Option<Type>,
    pub(super) tenant: Option<LitStr>,
    pub(super) audit: bool,
    pub(super) soft_delete: bool,
    pub(super) row: Option<Type>,
    pub(super) ids: Vec<(Ident, Type)>,
    pub(super) roots: Vec<(Ident, Type)>,
    /// Without roots.
    pub(super) fields: Vec<MappedField>,
    /// Whether `#[aggregate(...)]` on the struct could be read: what is missing then is really
    /// missing, and not misspelt.
    pub(super) is_container_read: bool,
    /// The same for the fields.
    pub(super) are_fields_read: bool,
    pub(super) is_generic: bool,
}

pub(super) fn parse(input: &DeriveInput, errors: &mut Errors) -> Parsed {
    refuse_generics(input, "Aggregate", errors);
    let mut parsed = Parsed {
        vis: input.vis.clone(),
        ident: input.ident.clone(),
        krate: default_crate(),
        table: None,
        event: None,
        tenant: None,
        audit: false,
        soft_delete: false,
        row: None,
        ids: Vec::new(),
        roots: Vec::new(),
        fields: Vec::new(),
        is_container_read: false,
        are_fields_read: false,
        is_generic: !input.generics.params.is_empty(),
    };
    let before = errors.count();
    parsed.container(&input.attrs, errors);
    parsed.is_container_read = errors.count() == before;
    let fields = struct_fields(input, "Aggregate", errors)
        .map(|fields| named_fields(fields, &input.ident, "Aggregate", errors))
        .unwrap_or_default();
    parsed.are_fields_read = !fields.is_empty();
    for (ident, field) in fields {
        parsed.field(ident, field, errors);
    }
    parsed
}

impl Parsed {
    fn container(&mut self, attributes: &[Attribute], errors: &mut Errors) {
        let allowed = &[TABLE, EVENT, TENANT, SOFT_DELETE, AUDIT, CRATE];
        entries(
            attributes,
            AGGREGATE,
            allowed,
            errors,
            |name, key, input| {
                match name {
                    TABLE => self.table = Some(sql_name(key, input, "\"route_plan\"")?),
                    EVENT => self.event = Some(value(key, input, "RoutePlanEvent")?),
                    TENANT if input.peek(Token![=]) => {
                        self.tenant = Some(sql_name(key, input, "\"tenant_id\"")?);
                    }
                    TENANT => self.tenant = Some(LitStr::new("tenant_id", Span::call_site())),
                    SOFT_DELETE => self.soft_delete = true,
                    AUDIT => self.audit = true,
                    _ => self.krate = crate_path(key, input)?,
                }
                Ok(())
            },
        );
        entries(attributes, MAPPER, &[ROW], errors, |_, key, input| {
            self.row = Some(value(key, input, "RoutePlanRow")?);
            Ok(())
        });
    }

    fn field(&mut self, ident: &Ident, field: &Field, errors: &mut Errors) {
        let before = errors.count();
        let mut roles = Vec::new();
        entries(&field.attrs, AGGREGATE, &[ID, ROOT], errors, |_, key, _| {
            roles.push(key.clone());
            Ok(())
        });
        let is_root = roles.iter().any(|role| role == ROOT);
        let is_id = roles.iter().any(|role| role == ID) && !is_root;
        if roles.len() > 1 {
            errors.report(ident, "a field is the `id` or the `root`, not both: the root is a field of its own, `root: Root<Event>`");
        }
        self.are_fields_read &= errors.count() == before;
        let ty = types::without_self(&field.ty, &self.ident);
        if is_id {
            self.ids.push((ident.clone(), ty.clone()));
        }
        if is_root {
            self.roots.push((ident.clone(), ty));
            refuse(
                &field.attrs,
                MAPPER,
                errors,
                "the root has no mapping: the framework stores its version and stamps in columns of their own; remove this",
            );
            return;
        }
        if self.row.is_some() {
            refuse(
                &field.attrs,
                MAPPER,
                errors,
                "with `#[mapper(row = ...)]` the row struct says how fields are stored: move this to its field",
            );
            return;
        }
        self.fields
            .push(MappedField::parse(&self.ident, ident, field, is_id, errors));
    }
}
