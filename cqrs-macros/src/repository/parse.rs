//! From a trait to its finders.

use syn::{
    GenericParam, Ident, ItemTrait, Path, PathArguments, ReceiverKind, TraitItem, TraitItemFn,
    Type, TypeParamBound,
};

use super::finder::Finder;
use super::sql::SqlFinder;
use super::{Kind, Method, Model};
use crate::errors::Errors;
use crate::symbol::{FIND, SQL};
use crate::types;

const SUPERTRAIT: &str = "a repository extends that of one aggregate: write `trait RoutePlans: Repository<RoutePlan>`, or `ReadModelRepository<...>` for a read model";

/// The trait that runs SQL for repositories of aggregates.
const SQL_QUERIES: &str = "SqlQueries";
/// That for read models.
const SQL_READS: &str = "SqlReads";

impl Kind {
    /// The trait that runs SQL.
    const fn runs_sql(self) -> &'static str {
        match self {
            Self::Aggregate => SQL_QUERIES,
            Self::ReadModel => SQL_READS,
        }
    }
}

/// What a method must know of its trait.
struct Place<'a> {
    kind: Kind,
    runs_sql: bool,
    krate: &'a Path,
}

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
    let (kind, entity, runs_sql) = supertraits(&item, errors)?;
    let mut methods = Vec::new();
    for item in item.items {
        match item {
            TraitItem::Fn(method) => {
                let place = Place {
                    kind,
                    runs_sql,
                    krate: &krate,
                };
                methods.extend(parse_method(method, &place, errors));
            }
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
        supertraits: item.supertraits,
        entity,
        methods,
    })
}

/// The one supertrait, `Repository<A>` or `ReadModelRepository<R>`, and whether there is that which
/// runs SQL beside it.
fn supertraits(item: &ItemTrait, errors: &mut Errors) -> Option<(Kind, Type, bool)> {
    let (mut found, mut sql) = (None, None);
    for bound in &item.supertraits {
        let path = match bound {
            TypeParamBound::Trait(bound) => Some(&bound.path),
            _ => None,
        };
        let name = path.and_then(|path| path.segments.last());
        if name.is_some_and(|name| name.ident == SQL_QUERIES || name.ident == SQL_READS) {
            sql = name.map(|name| &name.ident);
            continue;
        }
        let read = path.and_then(repository);
        if read.is_none() || found.is_some() {
            errors.report(
                bound,
                format!("{SUPERTRAIT}, and nothing else but `{SQL_QUERIES}` or `{SQL_READS}`"),
            );
        }
        found = found.or(read);
    }
    if item.supertraits.is_empty() {
        errors.report(&item.ident, SUPERTRAIT);
    }
    let (kind, entity) = found?;
    if let Some(sql) = sql.filter(|sql| *sql != kind.runs_sql()) {
        let other = kind.runs_sql();
        errors.report(sql, format!("here it is `{other}`: write that"));
    }
    Some((kind, entity, sql.is_some()))
}

fn repository(path: &Path) -> Option<(Kind, Type)> {
    let last = path.segments.last()?;
    let kind = match last.ident.to_string().as_str() {
        "Repository" => Kind::Aggregate,
        "ReadModelRepository" => Kind::ReadModel,
        _ => return None,
    };
    types::first_argument(last).map(|entity| (kind, entity.clone()))
}

/// The rules of a method:
///
/// - `#[find]`, `#[sql]` or a body, and no second
/// - a finder is `async fn` with `&mut self`, or `&self` for read models, and has lifetime
///   parameters at most
fn parse_method(mut method: TraitItemFn, place: &Place<'_>, errors: &mut Errors) -> Option<Method> {
    let kind = place.kind;
    let (finds, attributes): (Vec<_>, Vec<_>) = std::mem::take(&mut method.attrs)
        .into_iter()
        .partition(|attribute| attribute.path().is_ident(FIND) || attribute.path().is_ident(SQL));
    method.attrs = attributes;
    let mut finds = finds.into_iter();
    let Some(find) = finds.next() else {
        if method.default.is_none() {
            errors.report(
                &method.sig.ident,
                "how is it found? Write `#[find(status == RouteStatus::Ready)]` on it, `#[find]` for all, `#[sql(\"SELECT ...\")]`, or give it a body",
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
            "a finder has one `#[find]` or `#[sql]`: join conditions with `&&`",
        );
    }
    if let Some(body) = &method.default {
        errors.push(syn::Error::new(
            body.brace_token.span.open(),
            "a finder has `#[find]`, `#[sql]` or a body: remove one",
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
    if find.path().is_ident(SQL) {
        if !place.runs_sql {
            let other = kind.runs_sql();
            errors.report(
                &find,
                format!("SQL runs in databases alone: add `+ {other}` behind the supertrait, best in a trait of its own"),
            );
        }
        let finder = SqlFinder::parse(&find, method, kind, errors);
        return Some(Method::Sql(Box::new(finder)));
    }
    let finder = Finder::parse(&find, method, kind, place.krate, errors);
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
