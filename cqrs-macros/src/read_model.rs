//! `#[derive(ReadModel)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{DeriveInput, Ident, LitStr, Path, Token};

use crate::attribute::{
    allow_deprecated, crate_path, default_crate, emitted_at, entries, sql_name,
};
use crate::entity::EntityImpl;
use crate::errors::Errors;
use crate::input::{refuse_generics, refuse_row_struct, struct_fields};
use crate::mapper::{
    FieldParts, FieldsStruct, MappedField, Names, check_columns, named_fields, refuse_children,
};
use crate::symbol::{CRATE, KEY, READ_MODEL, SHARED, TABLE, TENANT};

/// The most fields that can make up a key.
const MAX_KEYS: usize = 3;

struct Parsed {
    krate: Path,
    table: Option<LitStr>,
    tenant: Option<LitStr>,
    /// The word that says that all tenants share its rows.
    shared: Option<Ident>,
    fields: Vec<MappedField>,
    /// Whether every `#[read_model(...)]` could be read: what is missing then is really missing,
    /// and not misspelt.
    is_read: bool,
}

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    let mut errors = Errors::default();
    let parsed = parse(input, &mut errors);
    check(input, &parsed, &mut errors);
    match &parsed.table {
        Some(table) if errors.is_empty() => emit(input, &parsed, &table.value()),
        _ => {
            let stub = stub(input, &parsed);
            let errors = errors.into_tokens();
            quote!(#errors #stub)
        }
    }
}

fn parse(input: &DeriveInput, errors: &mut Errors) -> Parsed {
    refuse_generics(input, "ReadModel", errors);
    let mut parsed = Parsed {
        krate: default_crate(),
        table: None,
        tenant: None,
        shared: None,
        fields: Vec::new(),
        is_read: true,
    };
    let before = errors.count();
    refuse_row_struct(input, errors);
    let allowed = &[TABLE, TENANT, SHARED, CRATE];
    entries(
        &input.attrs,
        READ_MODEL,
        allowed,
        errors,
        |name, key, input| {
            match name {
                TABLE => parsed.table = Some(sql_name(key, input, "\"route_plan_list\"")?),
                TENANT if input.peek(Token![=]) => {
                    parsed.tenant = Some(sql_name(key, input, "\"tenant_id\"")?);
                }
                TENANT => parsed.tenant = Some(LitStr::new("tenant_id", Span::call_site())),
                SHARED => parsed.shared = Some(key.clone()),
                _ => parsed.krate = crate_path(key, input)?,
            }
            Ok(())
        },
    );
    parsed.is_read = errors.count() == before;
    let fields = struct_fields(input, "ReadModel", errors)
        .map(|fields| named_fields(fields, &input.ident, "ReadModel", errors))
        .unwrap_or_default();
    for (ident, field) in fields {
        let before = errors.count();
        let mut is_key = false;
        entries(&field.attrs, READ_MODEL, &[KEY], errors, |_, _, _| {
            is_key = true;
            Ok(())
        });
        parsed.is_read &= errors.count() == before;
        parsed.fields.push(MappedField::parse(
            &input.ident,
            ident,
            field,
            is_key,
            errors,
        ));
    }
    parsed
}

/// The rules: a table, one to three keys, rows of a tenant or shared by all, no field in the
/// tenant's column, no two columns of one name.
fn check(input: &DeriveInput, parsed: &Parsed, errors: &mut Errors) {
    if parsed.table.is_none() && parsed.is_read {
        errors.report(
            &input.ident,
            "which table is it read from? Write `#[read_model(table = \"route_plan_list\")]`",
        );
    }
    if let (Some(shared), Some(_)) = (&parsed.shared, &parsed.tenant) {
        errors.report(
            shared,
            "rows are of one tenant each (`tenant`), or all tenants share them (`shared`): remove one",
        );
    }
    let keys: Vec<_> = parsed.fields.iter().filter(|field| field.is_key).collect();
    if keys.is_empty() && !parsed.fields.is_empty() && parsed.is_read {
        errors.report(
            &input.ident,
            "which field is the key? Write `#[read_model(key)]` on it, or on up to three",
        );
    }
    for key in keys.iter().skip(MAX_KEYS) {
        errors.report(
            &key.ident,
            format!("a key has up to {MAX_KEYS} fields: remove `#[read_model(key)]` here"),
        );
    }
    for field in &parsed.fields {
        let Some((column, span)) = field.column() else {
            continue;
        };
        if parsed
            .tenant
            .as_ref()
            .is_some_and(|tenant| tenant.value() == column)
        {
            errors.push(syn::Error::new(
                span,
                format!("the framework keeps the column {column:?}, which `tenant` adds: remove the field, or give it another name or `#[mapper(column = \"...\")]`"),
            ));
        }
    }
    check_columns(&parsed.fields, errors);
    refuse_children(&parsed.fields, errors);
}

fn emit(input: &DeriveInput, parsed: &Parsed, table: &str) -> TokenStream {
    let ident = &input.ident;
    let krate = &parsed.krate;
    let fields = FieldsStruct {
        krate,
        vis: &input.vis,
        owner: ident,
        through: "Entity",
        fields: parsed
            .fields
            .iter()
            .map(|field| field.typed(krate, Names::Whole))
            .collect(),
        record: None,
        allow_deprecated: allow_deprecated(input),
    };
    let FieldParts {
        describe,
        read,
        write,
    } = FieldParts::of(&parsed.fields, krate);
    let (framework, skip) = match &parsed.tenant {
        Some(tenant) => (
            quote!(.tenant(#tenant)),
            quote!(#krate::__private::skip_tenant(__row)?;),
        ),
        None if parsed.shared.is_some() => (quote!(.shared()), TokenStream::new()),
        None => (TokenStream::new(), TokenStream::new()),
    };
    let entity = EntityImpl {
        krate,
        ident,
        table,
        is_tenant: parsed.tenant.is_some(),
        framework,
        describe,
        fields: &fields,
        read: quote!(#skip ::core::result::Result::Ok(Self { #read })),
        write,
        more: TokenStream::new(),
    }
    .emit();
    let fields = fields.emit();
    let read_model = read_model_impl(input, parsed);
    quote!(#fields #entity #read_model)
}

/// ```text
/// impl ::cqrs_core::ReadModel for RoutePlanListRow {
///     type Key = (Id<Depot>, NaiveDate);
///
///     fn key(&self) -> (Id<Depot>, NaiveDate) {
///         (::core::clone::Clone::clone(&self.depot), ::core::clone::Clone::clone(&self.day))
///     }
/// }
/// ```
fn read_model_impl(input: &DeriveInput, parsed: &Parsed) -> TokenStream {
    let ident = &input.ident;
    let krate = &parsed.krate;
    let keys: Vec<_> = parsed.fields.iter().filter(|field| field.is_key).collect();
    let types = keys.iter().map(|key| &key.ty);
    let values = keys.iter().map(|key| {
        let field = &key.ident;
        let span = emitted_at(&key.ty);
        quote_spanned!(span=> ::core::clone::Clone::clone(&self.#field))
    });
    let (key_type, key) = if keys.len() == 1 {
        (quote!(#(#types)*), quote!(#(#values)*))
    } else {
        (quote!((#(#types),*)), quote!((#(#values),*)))
    };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::ReadModel for #ident {
            type Key = #key_type;

            fn key(&self) -> #key_type {
                #key
            }
        }
    }
}

fn stub(input: &DeriveInput, parsed: &Parsed) -> TokenStream {
    if !input.generics.params.is_empty() {
        return TokenStream::new();
    }
    let fields = FieldsStruct {
        krate: &parsed.krate,
        vis: &input.vis,
        owner: &input.ident,
        through: "Entity",
        fields: parsed
            .fields
            .iter()
            .filter_map(|field| field.typed_stub(&parsed.krate))
            .collect(),
        record: None,
        allow_deprecated: allow_deprecated(input),
    };
    let entity = EntityImpl::stub(&parsed.krate, &input.ident, &fields);
    let fields = fields.emit();
    let keys = parsed.fields.iter().filter(|field| field.is_key).count();
    let read_model = if (1..=MAX_KEYS).contains(&keys) {
        read_model_impl(input, parsed)
    } else {
        TokenStream::new()
    };
    quote!(#fields #entity #read_model)
}
