//! From a checked aggregate to code.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Path, Type};

use super::parse::Parsed;
use super::{Framework, Model, Shape, Storage, sourced};
use crate::attribute::emitted_at;
use crate::entity::EntityImpl;
use crate::mapper::{ChildrenParts, FieldParts, FieldsStruct, Names, TypedField};
use crate::types;

pub(super) fn emit(model: &Model) -> TokenStream {
    match &model.storage {
        Storage::Row { table, shape } => emit_stored(model, table, shape),
        Storage::Events { state, snapshot } => sourced::emit(model, state, snapshot.as_ref()),
    }
}

fn emit_stored(model: &Model, table: &str, shape: &Shape) -> TokenStream {
    let Model { krate, ident, .. } = model;
    let mut typed = Vec::new();
    let mut record = None;
    match shape {
        Shape::Fields(fields) => {
            typed.extend(fields.iter().map(|field| field.typed(krate, Names::Whole)));
        }
        Shape::Row(row) => record = Some(row),
    }
    typed.extend(model.framework.typed(krate));
    let fields = FieldsStruct {
        krate,
        vis: &model.vis,
        owner: ident,
        through: "Entity",
        fields: typed,
        record,
        allow_deprecated: model.allow_deprecated.clone(),
    };
    let root = &model.root.0;
    let children = match shape {
        Shape::Fields(fields) => ChildrenParts::of(fields, krate).functions(),
        Shape::Row(_) => TokenStream::new(),
    };
    let (describe, read, write) = match shape {
        Shape::Fields(fields) => {
            let parts = FieldParts::of(fields, krate);
            let (read, write) = (parts.read, parts.write);
            let span = emitted_at(&model.root.1);
            let read_root = quote_spanned!(span=> #krate::Root::read(__row)?);
            let read = quote!(::core::result::Result::Ok(Self { #root: #read_root, #read }));
            (parts.describe, read, write)
        }
        Shape::Row(row) => with_row(krate, row),
    };
    let entity = EntityImpl {
        krate,
        ident,
        table,
        is_tenant: model.framework.tenant.is_some(),
        framework: model.framework.describe(),
        describe,
        fields: &fields,
        read,
        write,
        more: quote! {
            fn framework_row(&self) -> ::std::vec::Vec<#krate::mapping::Value> {
                #krate::Root::framework_row(
                    #krate::AggregateRoot::root(self),
                    <Self as #krate::Entity>::table(),
                )
            }

            #children
        },
    }
    .emit();
    let fields = fields.emit();
    let parts = (&model.event, &model.id, &model.root);
    let root_impl = aggregate_root(krate, ident, parts, TokenStream::new());
    let stored = state_stored(krate, ident, model.framework.history);
    quote!(#fields #entity #root_impl #stored)
}

/// ```text
/// impl ::cqrs_core::StateStored for RoutePlan {}
/// impl ::cqrs_core::Historic for RoutePlan {}
/// impl ::cqrs_core::KeepsHistory for RoutePlan {}
/// ```
fn state_stored(krate: &Path, ident: &syn::Ident, keeps_history: bool) -> TokenStream {
    let history = keeps_history.then(|| {
        quote! {
            #[automatically_derived]
            #[allow(deprecated)]
            impl #krate::Historic for #ident {}

            #[automatically_derived]
            #[allow(deprecated)]
            impl #krate::KeepsHistory for #ident {}
        }
    });
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::StateStored for #ident {}

        #history
    }
}

/// The parts of `impl Entity` where a row struct has the columns.
///
/// ```text
/// .row::<RoutePlanRow>()
/// ::cqrs_core::__private::read_mapped::<Self, RoutePlanRow, __R>(__row)
/// ::cqrs_core::Record::write(&<RoutePlanRow as ::cqrs_core::mapping::RowMapper<Self>>::from_aggregate(self), __row)?;
/// ```
fn with_row(krate: &Path, row: &Type) -> (TokenStream, TokenStream, TokenStream) {
    let span = emitted_at(row);
    (
        quote_spanned!(span=> .row::<#row>()),
        quote_spanned!(span=> #krate::__private::read_mapped::<Self, #row, __R>(__row)),
        quote_spanned!(span=> #krate::Record::write(
            &<#row as #krate::mapping::RowMapper<Self>>::from_aggregate(self),
            __row,
        )?;),
    )
}

/// ```text
/// impl ::cqrs_core::AggregateRoot for RoutePlan {
///     type Id = RoutePlanId;
///     type Event = RoutePlanEvent;
///
///     fn id(&self) -> &RoutePlanId { &self.id }
///     fn root(&self) -> &::cqrs_core::Root<RoutePlanEvent> { &self.root }
///     fn root_mut(&mut self) -> &mut ::cqrs_core::Root<RoutePlanEvent> { &mut self.root }
/// }
/// ```
pub(super) fn aggregate_root(
    krate: &Path,
    ident: &syn::Ident,
    (event, (id, id_type), (root, root_type)): (&Type, &(syn::Ident, Type), &(syn::Ident, Type)),
    more: TokenStream,
) -> TokenStream {
    let span = emitted_at(root_type);
    let get_root = quote_spanned!(span=> &self.#root);
    let get_root_mut = quote_spanned!(span=> &mut self.#root);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #krate::AggregateRoot for #ident {
            type Id = #id_type;
            type Event = #event;

            #more

            fn id(&self) -> &#id_type {
                &self.#id
            }

            fn root(&self) -> &#krate::Root<#event> {
                #get_root
            }

            fn root_mut(&mut self) -> &mut #krate::Root<#event> {
                #get_root_mut
            }
        }
    }
}

impl Framework {
    /// Calls on the table builder.
    fn describe(&self) -> TokenStream {
        let mut calls = quote!(.version());
        if let Some(tenant) = &self.tenant {
            calls.extend(quote!(.tenant(#tenant)));
        }
        if self.audit {
            calls.extend(quote!(.audit()));
        }
        if self.soft_delete {
            calls.extend(quote!(.soft_delete()));
        }
        if self.history {
            calls.extend(quote!(.history()));
        }
        if self.chained {
            calls.extend(quote!(.chained()));
        }
        calls
    }

    /// The typed fields of its columns.
    fn typed(&self, krate: &Path) -> Vec<TypedField> {
        let time = quote!(#krate::__private::DateTime<#krate::__private::Utc>);
        let text = quote!(::std::string::String);
        let mut typed = vec![TypedField::framework(
            "version",
            quote!(::core::primitive::u64),
            krate,
        )];
        if self.audit {
            for (name, ty) in [
                ("created_at", &time),
                ("created_by", &text),
                ("updated_at", &time),
                ("updated_by", &text),
            ] {
                typed.push(TypedField::framework(name, ty.clone(), krate));
            }
        }
        if self.soft_delete {
            for (name, ty) in [("deleted_at", time), ("deleted_by", text)] {
                typed.push(TypedField::framework(name, ty, krate));
            }
        }
        typed
    }
}

/// The same impls, for the rest of the crate to be checked after an error.
pub(super) fn stub(parsed: &Parsed) -> TokenStream {
    if parsed.is_generic {
        return TokenStream::new();
    }
    let Parsed { krate, ident, .. } = parsed;
    let framework = Framework {
        tenant: None,
        audit: parsed.audit,
        soft_delete: parsed.soft_delete,
        history: parsed.history,
        chained: parsed.chained,
    };
    let mut typed: Vec<TypedField> = parsed
        .fields
        .iter()
        .filter_map(|field| field.typed_stub(krate))
        .collect();
    for field in framework.typed(krate) {
        if !typed.iter().any(|other| other.ident == field.ident) {
            typed.push(field);
        }
    }
    let fields = FieldsStruct {
        krate,
        vis: &parsed.vis,
        owner: ident,
        through: "Entity",
        fields: typed,
        record: parsed.row.as_ref(),
        allow_deprecated: parsed.allow_deprecated.clone(),
    };
    let entity = EntityImpl::stub(krate, ident, &fields);
    let fields = fields.emit();
    let root = parsed.roots.first();
    let event = parsed
        .event
        .as_ref()
        .or_else(|| types::argument_of(&root?.1, "Root"));
    let aggregate = match (event, parsed.ids.first(), root) {
        (Some(event), Some(id), Some(root)) => {
            aggregate_root(krate, ident, (event, id, root), TokenStream::new())
        }
        _ => TokenStream::new(),
    };
    let kind = match (aggregate.is_empty(), parsed.sourced) {
        (true, _) => TokenStream::new(),
        (false, true) => sourced::stub(krate, ident),
        (false, false) => state_stored(krate, ident, parsed.history),
    };
    quote!(#fields #entity #aggregate #kind)
}
