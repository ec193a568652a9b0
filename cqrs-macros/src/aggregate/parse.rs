//! From tokens to what the user wrote.

use proc_macro2::{Span, TokenStream};
use syn::{
    Attribute, DeriveInput, Expr, Field, Ident, LitInt, LitStr, Path, Token, Type, Visibility,
};

use crate::attribute::{
    allow_deprecated, crate_path, default_crate, entries, nested, refuse, sql_name, value,
};
use crate::errors::Errors;
use crate::input::{refuse_generics, struct_fields};
use crate::mapper::{MappedField, named_fields};
use crate::symbol::{
    AGGREGATE, AUDIT, CHAINED, CRATE, EVENT, EVERY, HISTORY, ID, MAPPER, MAX_AGE, ROOT, ROW,
    SNAPSHOT, SOFT_DELETE, SOURCED, TABLE, TENANT, VERSION,
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
    pub(super) history: bool,
    /// Whether each event covers the one before.
    pub(super) chained: bool,
    /// Whether its state is the fold of its events.
    pub(super) sourced: bool,
    pub(super) snapshot: Option<Snapshot>,
    /// The keys of `#[aggregate(...)]` on the struct, to point at.
    pub(super) keys: Vec<Ident>,
    pub(super) row: Option<Type>,
    pub(super) ids: Vec<(Ident, Type)>,
    pub(super) roots: Vec<(Ident, Type)>,
    /// Without roots. None of one that is event-sourced.
    pub(super) fields: Vec<MappedField>,
    /// The fields of one that is event-sourced, without id and root.
    pub(super) state: Vec<(Ident, Type)>,
    /// Whether `#[aggregate(...)]` on the struct could be read: what is missing then is really
    /// missing, and not misspelt.
    pub(super) is_container_read: bool,
    /// The same for the fields.
    pub(super) are_fields_read: bool,
    pub(super) is_generic: bool,
    /// For impls that name the fields.
    pub(super) allow_deprecated: TokenStream,
}

/// `snapshot(every = 100, max_age = ..., version = 2)`.
pub(super) struct Snapshot {
    pub(super) every: u64,
    pub(super) max_age: Option<Expr>,
    /// What the user counts up where the fields mean something else without being others.
    pub(super) version: u64,
}

impl Snapshot {
    fn parse(key: &Ident, input: syn::parse::ParseStream) -> syn::Result<Self> {
        let (mut every, mut max_age, mut version) = (None, None, 0);
        let allowed = &[EVERY, MAX_AGE, VERSION];
        nested(key, input, allowed, "every = 100", |name, key, input| {
            match name {
                EVERY => {
                    let events: LitInt = value(key, input, "100")?;
                    let count = events.base10_parse().ok().filter(|count: &u64| *count > 0);
                    every = Some(count.ok_or_else(|| {
                        syn::Error::new(events.span(), "a snapshot comes after at least one event")
                    })?);
                }
                MAX_AGE => max_age = Some(value(key, input, "Duration::from_secs(86_400)")?),
                _ => version = value::<LitInt>(key, input, "2")?.base10_parse()?,
            }
            Ok(())
        })?;
        let every = every.ok_or_else(|| {
            let message = "after how many events? Write `snapshot(every = 100)`";
            syn::Error::new(key.span(), message)
        })?;
        Ok(Self {
            every,
            max_age,
            version,
        })
    }
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
        history: false,
        chained: false,
        sourced: false,
        snapshot: None,
        keys: Vec::new(),
        row: None,
        ids: Vec::new(),
        roots: Vec::new(),
        fields: Vec::new(),
        state: Vec::new(),
        is_container_read: false,
        are_fields_read: false,
        is_generic: !input.generics.params.is_empty(),
        allow_deprecated: allow_deprecated(input),
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
        let allowed = &[
            TABLE,
            EVENT,
            TENANT,
            SOFT_DELETE,
            AUDIT,
            HISTORY,
            CHAINED,
            SOURCED,
            SNAPSHOT,
            CRATE,
        ];
        entries(
            attributes,
            AGGREGATE,
            allowed,
            errors,
            |name, key, input| {
                self.keys.push(key.clone());
                match name {
                    TABLE => self.table = Some(sql_name(key, input, "\"route_plan\"")?),
                    EVENT => self.event = Some(value(key, input, "RoutePlanEvent")?),
                    TENANT if input.peek(Token![=]) => {
                        self.tenant = Some(sql_name(key, input, "\"tenant_id\"")?);
                    }
                    TENANT => self.tenant = Some(LitStr::new("tenant_id", Span::call_site())),
                    SOFT_DELETE => self.soft_delete = true,
                    AUDIT => self.audit = true,
                    HISTORY => self.history = true,
                    CHAINED => self.chained = true,
                    SOURCED => self.sourced = true,
                    SNAPSHOT => self.snapshot = Some(Snapshot::parse(key, input)?),
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
        if self.sourced {
            refuse(
                &field.attrs,
                MAPPER,
                errors,
                "an event-sourced aggregate has no columns: remove this",
            );
            if !is_id {
                self.state.push((ident.clone(), ty));
            }
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
