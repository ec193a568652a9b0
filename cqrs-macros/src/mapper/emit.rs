//! What a mapped field contributes to a table, to writing and to reading.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{Path, Type};

use super::{Children, Codec, Filling, Kind, MappedField, TypedField, TypedKind};
use crate::attribute::emitted_at;
use crate::types;

impl MappedField {
    /// A call on the table builder.
    ///
    /// ```text
    /// .key::<Id<RoutePlan>>("id")
    /// .column::<Option<i32>>("priority")
    /// .column::<::cqrs_core::mapping::AsText<RouteStatus>>("status")
    /// .column::<i64>("total").generated()
    /// .flatten::<GeoPoint>("depot_")
    /// .children::<Stop>("route_stop", "seq", ::core::option::Option::None)
    /// ```
    pub(crate) fn describe(&self, krate: &Path) -> TokenStream {
        let ty = &self.ty;
        let span = emitted_at(ty);
        match &self.kind {
            Kind::Flatten { prefix } => quote_spanned!(span=> .flatten::<#ty>(#prefix)),
            Kind::Children(children) => children.describe(),
            Kind::Column { name, .. } => {
                let column_type = self.column_type(krate);
                let filled = match self.filling {
                    Filling::Code => TokenStream::new(),
                    Filling::Generated => quote!(.generated()),
                    Filling::Others => quote!(.read_only()),
                };
                if self.is_key {
                    quote_spanned!(span=> .key::<#column_type>(#name))
                } else {
                    quote_spanned!(span=> .column::<#column_type>(#name) #filled)
                }
            }
        }
    }

    /// The `ColumnValue` that the column holds.
    fn column_type(&self, krate: &Path) -> TokenStream {
        let span = emitted_at(&self.ty);
        let (inner, is_optional) = self.coded_type();
        let column_type = match &self.kind {
            Kind::Column { codec, .. } => match codec {
                Codec::Plain => return self.ty.to_token_stream(),
                Codec::Text => quote_spanned!(span=> #krate::mapping::AsText<#inner>),
                Codec::Json => quote_spanned!(span=> #krate::mapping::AsJson<#inner>),
                Codec::With { column_type, .. } => quote!(#column_type),
            },
            Kind::Flatten { .. } | Kind::Children(_) => return self.ty.to_token_stream(),
        };
        if is_optional {
            quote_spanned!(span=> ::core::option::Option<#column_type>)
        } else {
            column_type
        }
    }

    /// What the codec sees: the type without its `Option`, and whether there was one.
    fn coded_type(&self) -> (&Type, bool) {
        match types::option(&self.ty) {
            Some(inner) => (inner, true),
            None => (&self.ty, false),
        }
    }

    /// A statement that writes the field into `__row`.
    ///
    /// ```text
    /// __row.put(&self.priority)?;
    /// __row.put_value(::cqrs_core::mapping::encode_text(&self.status))?;
    /// __row.put_value(::cqrs_core::__private::encode_optional(self.note.as_ref(), ::cqrs_core::mapping::encode_json))?;
    /// __row.put_value(::cqrs_core::ColumnValue::to_value(&units::to_column(&self.length)))?;
    /// ::cqrs_core::ValueObject::write(&self.depot, __row)?;
    /// ```
    pub(crate) fn write(&self, krate: &Path) -> TokenStream {
        let ident = &self.ident;
        let span = emitted_at(&self.ty);
        let (_, is_optional) = self.coded_type();
        let encode = match &self.kind {
            Kind::Flatten { .. } => {
                return quote_spanned!(span=> #krate::ValueObject::write(&self.#ident, __row)?;);
            }
            Kind::Children(_) => return TokenStream::new(),
            Kind::Column { codec, .. } => match codec {
                Codec::Plain => return quote_spanned!(span=> __row.put(&self.#ident)?;),
                Codec::Text => quote_spanned!(span=> #krate::mapping::encode_text),
                Codec::Json => quote_spanned!(span=> #krate::mapping::encode_json),
                Codec::With {
                    module,
                    column_type,
                } => {
                    let span = emitted_at(module);
                    quote_spanned!(span=> |__value| {
                        let __column: #column_type = #module::to_column(__value);
                        #krate::ColumnValue::to_value(&__column)
                    })
                }
            },
        };
        if is_optional {
            return quote_spanned!(span=>
                __row.put_value(#krate::__private::encode_optional(self.#ident.as_ref(), #encode))?;
            );
        }
        quote_spanned!(span=> __row.put_value(#krate::__private::encode(&self.#ident, #encode))?;)
    }

    /// An expression that reads the field from `__row`.
    ///
    /// ```text
    /// __row.next::<i32>()?
    /// __row.next::<::cqrs_core::mapping::AsText<RouteStatus>>()?.0
    /// __row.next::<::core::option::Option<::cqrs_core::mapping::AsJson<Note>>>()?.map(|__value| __value.0)
    /// ::cqrs_core::__private::read_with(__row, |__value: i64| units::from_column(__value))?
    /// <GeoPoint as ::cqrs_core::ValueObject>::read(__row)?
    /// ```
    pub(crate) fn read(&self, krate: &Path) -> TokenStream {
        let ty = &self.ty;
        let span = emitted_at(ty);
        let (_, is_optional) = self.coded_type();
        let column_type = self.column_type(krate);
        match &self.kind {
            Kind::Flatten { .. } => {
                quote_spanned!(span=> <#ty as #krate::ValueObject>::read(__row)?)
            }
            Kind::Children(_) => quote!(::std::vec::Vec::new()),
            Kind::Column { codec, .. } => match codec {
                Codec::Plain => quote_spanned!(span=> __row.next::<#ty>()?),
                Codec::Text | Codec::Json if is_optional => {
                    quote_spanned!(span=> __row.next::<#column_type>()?.map(|__value| __value.0))
                }
                Codec::Text | Codec::Json => quote_spanned!(span=> __row.next::<#column_type>()?.0),
                Codec::With {
                    module,
                    column_type,
                } => {
                    let span = emitted_at(module);
                    let from_column = quote_spanned!(span=>
                        |__value: #column_type| #module::from_column(__value)
                    );
                    if is_optional {
                        quote_spanned!(span=> #krate::__private::read_optional_with(__row, #from_column)?)
                    } else {
                        quote_spanned!(span=> #krate::__private::read_with(__row, #from_column)?)
                    }
                }
            },
        }
    }

    /// The typed field that conditions use.
    pub(crate) fn typed(&self, krate: &Path, names: Names) -> TypedField {
        let span = emitted_at(&self.ty);
        let kind = match &self.kind {
            Kind::Flatten { prefix } => TypedKind::Group {
                ty: self.ty.clone(),
                prefix: match names {
                    Names::Whole => quote!(#prefix),
                    Names::Prefixed => quote!(&::std::format!("{}{}", __prefix, #prefix)),
                },
            },
            Kind::Children(Children { table, child, .. }) => TypedKind::Children {
                table: table.value(),
                child: child.clone(),
            },
            Kind::Column { name, codec } => {
                let column = match names {
                    Names::Whole => quote!(#name),
                    Names::Prefixed => quote!(#krate::__private::column_of::<__T>(__prefix, #name)),
                };
                let new = match codec {
                    Codec::Text => quote_spanned!(span=> #krate::Field::encoded(
                        #column,
                        #krate::mapping::ColumnType::Text,
                        #krate::mapping::encode_text,
                    )),
                    Codec::Json => quote_spanned!(span=> #krate::Field::json(#column)),
                    _ => quote_spanned!(span=> #krate::Field::new(#column)),
                };
                TypedKind::Column {
                    name: name.value(),
                    value: self.condition_type(codec, krate),
                    new,
                }
            }
        };
        TypedField {
            ident: self.ident.clone(),
            kind,
        }
    }

    /// What a condition compares the column with.
    fn condition_type(&self, codec: &Codec, krate: &Path) -> TokenStream {
        let span = emitted_at(&self.ty);
        let (inner, _) = self.coded_type();
        match codec {
            Codec::Plain | Codec::Text => quote!(#inner),
            Codec::Json => quote_spanned!(span=> #krate::mapping::AsJson<#inner>),
            Codec::With { column_type, .. } => types::option(column_type)
                .unwrap_or(column_type)
                .to_token_stream(),
        }
    }

    /// The typed field for a stub: it asks nothing of the field's type.
    pub(crate) fn typed_stub(&self, krate: &Path) -> Option<TypedField> {
        let Kind::Column { name, codec } = &self.kind else {
            return None;
        };
        Some(TypedField {
            ident: self.ident.clone(),
            kind: TypedKind::Column {
                name: name.value(),
                value: self.condition_type(codec, krate),
                new: quote!(::core::unreachable!()),
            },
        })
    }
}

/// How the columns of typed fields are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// By the names that the fields give.
    Whole,
    /// With `__prefix`, a variable, in front, in the table of `__T`.
    Prefixed,
}
