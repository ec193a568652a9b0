//! From a trait to its finders.

use syn::{
    GenericParam, Ident, ItemTrait, Path, PathArguments, ReceiverKind, TraitItem, TraitItemFn,
    Type, TypeParamBound,
};

use super::finder::Finder;
use super::{Kind, Method, Model};
use crate::errors::Errors;
use crate::symbol::FIND;
use crate::types;

const SUPERTRAIT: &str = "a repository extends that of one aggregate: write `trait RoutePlans: Repository<RoutePlan>`, or `ReadModelRepository<...>` for a read model";

/// Reads the trait; `None` where it cannot be told which aggregate it is about.
pub(super) fn parse(item: ItemTrait, krate: Path, errors: &mut Errors) -> Option<Model> {
    if !item.generics.params.is_empty() || item.generics.where_clause.is_some() {
        errors.report(
            &item.ident,
            "a repository trait is not generic: it is about one aggregate, so write a trait for each",
        );
    }
    if let Some(token) = &item.unsafety {
        errors.report(token, "a repository trait is not unsafe: remove this");
    }
    let (kind, supertrait, entity) = supertrait(&item, errors)?;
    let mut methods = Vec::new();
    for item in item.items {
        match item {
            TraitItem::Fn(method) => methods.extend(parse_method(method, kind, &krate, errors)),
            other => errors.report(
                other,
                "a repository trait has finders only: write this outside of it",
            ),
        }
    }
    Some(Model {
        attributes: item.attrs,
        vis: item.vis,
        ident: item.ident,
        krate,
        kind,
        supertrait,
        entity,
        methods,
    })
}

/// The one supertrait, `Repository<A>` or `ReadModelRepository<R>`.
fn supertrait(item: &ItemTrait, errors: &mut Errors) -> Option<(Kind, Path, Type)> {
    let mut found = None;
    for bound in &item.supertraits {
        let read = match bound {
            TypeParamBound::Trait(bound) => repository(&bound.path),
            _ => None,
        };
        if read.is_none() || found.is_some() {
            errors.report(bound, format!("{SUPERTRAIT}, and nothing else"));
        }
        found = found.or(read);
    }
    if item.supertraits.is_empty() {
        errors.report(&item.ident, SUPERTRAIT);
    }
    found
}

fn repository(path: &Path) -> Option<(Kind, Path, Type)> {
    let last = path.segments.last()?;
    let kind = match last.ident.to_string().as_str() {
        "Repository" => Kind::Aggregate,
        "ReadModelRepository" => Kind::ReadModel,
        _ => return None,
    };
    types::first_argument(last).map(|entity| (kind, path.clone(), entity.clone()))
}

/// The rules of a method:
///
/// - `#[find]` or a body, not both
/// - a finder is `async fn` with `&mut self`, or `&self` for read models, and has lifetime
///   parameters at most
fn parse_method(
    mut method: TraitItemFn,
    kind: Kind,
    krate: &Path,
    errors: &mut Errors,
) -> Option<Method> {
    let (finds, attributes): (Vec<_>, Vec<_>) = std::mem::take(&mut method.attrs)
        .into_iter()
        .partition(|attribute| attribute.path().is_ident(FIND));
    method.attrs = attributes;
    let mut finds = finds.into_iter();
    let Some(find) = finds.next() else {
        if method.default.is_none() {
            errors.report(
                &method.sig.ident,
                "how is it found? Write `#[find(status == RouteStatus::Ready)]` on it, `#[find]` for all, or give it a body",
            );
        }
        if method.sig.asyncness.is_some() {
            check_self(&method, kind, errors);
        }
        return Some(Method::Written(Box::new(TraitItem::Fn(method))));
    };
    for second in finds {
        errors.report(
            second,
            "a finder has one `#[find]`: join the conditions with `&&`",
        );
    }
    if let Some(body) = &method.default {
        errors.push(syn::Error::new(
            body.brace_token.span.open(),
            "a finder has `#[find]` or a body, not both: remove one",
        ));
    }
    if method.sig.asyncness.is_none() {
        errors.report(
            method.sig.fn_token,
            "a finder waits for the database: write `async fn`",
        );
    }
    check_self(&method, kind, errors);
    check_parameters(&method.sig.generics, errors);
    let finder = Finder::parse(&find, method, kind, krate, errors);
    Some(Method::Found(Box::new(finder)))
}

fn check_self(method: &TraitItemFn, kind: Kind, errors: &mut Errors) {
    let receiver = method.sig.receiver().map(|receiver| &receiver.kind);
    let message = match (kind, receiver) {
        (Kind::Aggregate, Some(ReceiverKind::Reference(_, _, Some(_))))
        | (Kind::ReadModel, Some(ReceiverKind::Reference(_, _, None))) => return,
        (Kind::Aggregate, _) => {
            "a finder takes `&mut self`: it reads through the unit of work, one statement at a time"
        }
        (Kind::ReadModel, _) => {
            "a finder of read models takes `&self`: each read is a statement of its own"
        }
    };
    match method.sig.receiver() {
        Some(receiver) => errors.report(receiver, message),
        None => errors.report(&method.sig.ident, message),
    }
}

fn check_parameters(generics: &syn::Generics, errors: &mut Errors) {
    for parameter in &generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            errors.report(
                parameter,
                "a finder has no type parameters: name the types of its conditions",
            );
        }
    }
}

/// A path that is one word.
pub(super) fn single_ident(path: &Path) -> Option<&Ident> {
    let segment = path.segments.first()?;
    let is_single = path.segments.len() == 1
        && path.leading_colon.is_none()
        && matches!(segment.arguments, PathArguments::None);
    is_single.then_some(&segment.ident)
}
