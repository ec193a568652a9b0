//! Looking at types by their spelling.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, Ident, PathArguments, PathSegment, Type};

/// The last segment of a type's path.
pub(crate) fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) if path.qself.is_none() => path.path.segments.last(),
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}

/// The first type argument of a path segment.
pub(crate) fn first_argument(segment: &PathSegment) -> Option<&Type> {
    match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
        }
        _ => None,
    }
}

/// The `T` of a type written `name<T>`.
pub(crate) fn argument_of<'t>(ty: &'t Type, name: &str) -> Option<&'t Type> {
    last_segment(ty)
        .filter(|segment| segment.ident == name)
        .and_then(first_argument)
}

/// The type with `Self` spelt out, for places where `Self` would be another type or none.
pub(crate) fn without_self(ty: &Type, owner: &Ident) -> Type {
    syn::parse2(replace_self(ty.to_token_stream(), owner)).unwrap_or_else(|_| ty.clone())
}

fn replace_self(tokens: TokenStream, owner: &Ident) -> TokenStream {
    tokens
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                let mut owner = owner.clone();
                owner.set_span(ident.span());
                TokenTree::Ident(owner)
            }
            TokenTree::Group(group) => {
                let mut replaced =
                    Group::new(group.delimiter(), replace_self(group.stream(), owner));
                replaced.set_span(group.span());
                TokenTree::Group(replaced)
            }
            token => token,
        })
        .collect()
}

/// The `T` of `Option<T>`.
pub(crate) fn option(ty: &Type) -> Option<&Type> {
    argument_of(ty, "Option")
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn self_is_spelt_out_at_any_depth() {
        let owner: Ident = parse_quote!(Plan);
        let expected: Type = parse_quote!(Option<(Id<Plan>, [Plan; 2], Selfish)>);
        let ty = parse_quote!(Option<(Id<Self>, [Self; 2], Selfish)>);
        assert_eq!(without_self(&ty, &owner), expected);
    }

    #[test]
    fn an_option_is_found_by_its_spelling() {
        let inner: Type = parse_quote!(u8);
        for ty in [
            parse_quote!(Option<u8>),
            parse_quote!(std::option::Option<u8>),
            parse_quote!((::core::option::Option<u8>)),
        ] {
            assert_eq!(option(&ty), Some(&inner));
        }
        for ty in [
            parse_quote!(u8),
            parse_quote!(Vec<Option<u8>>),
            parse_quote!([u8; 2]),
        ] {
            assert_eq!(option(&ty), None);
        }
    }
}
