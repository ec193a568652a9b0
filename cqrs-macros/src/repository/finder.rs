//! One finder: its condition, and what it returns.

use proc_macro2::TokenStream;
use syn::{Attribute, Expr, FnArg, Ident, Pat, Path, ReturnType, TraitItemFn, Type};

use super::Kind;
use super::condition::{Conditions, is_untyped_number};
use super::find::{Find, Flags, OrderKey};
use crate::errors::Errors;
use crate::symbol::LIMIT;
use crate::types;

const RETURNS: &str = "a finder returns `Result<Vec<A>>` for all, `Result<Page<A>>` for a page, `Result<Option<A>>` for the first, `Result<u64>` for how many, or `Result<bool>` for whether there is any; with `one`, `Result<A>` or `Result<Option<A>>`";

pub(super) struct Finder {
    pub(super) method: TraitItemFn,
    /// An expression that makes the specification, over the typed fields.
    pub(super) condition: Option<TokenStream>,
    pub(super) order: Vec<OrderKey>,
    pub(super) limits: Vec<Rows>,
    /// The parameter that says which page.
    pub(super) page: Option<Ident>,
    pub(super) answer: Option<Answer>,
    pub(super) lock: Option<Lock>,
}

/// How rows are locked.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    Wait,
    Skip,
}

/// A limit on the number of rows.
pub(super) enum Rows {
    /// A number without a type of its own.
    Literal(Expr),
    /// Any unsigned expression.
    Expression(Expr),
    /// The parameter `limit`.
    Parameter(Ident, Type),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    List,
    Page,
    First,
    /// The only one, if there is one.
    AtMostOne,
    /// The only one.
    One,
    Count,
    Exists,
}

impl Finder {
    pub(super) fn parse(
        attribute: &Attribute,
        method: TraitItemFn,
        kind: Kind,
        krate: &Path,
        errors: &mut Errors,
    ) -> Self {
        let Find {
            condition,
            order,
            limit,
            flags,
        } = Find::parse(attribute, errors);
        let parameters = parameters(&method);
        let specifications: Vec<Ident> = parameters
            .iter()
            .filter(|(_, ty)| {
                types::last_segment(ty).is_some_and(|last| last.ident == "Specification")
            })
            .map(|(name, _)| (*name).clone())
            .collect();
        let condition = condition.map(|condition| {
            Conditions {
                krate,
                specifications: &specifications,
                errors,
            }
            .translate(&condition)
        });
        let answer = answer(&method.sig.output, flags.one.is_some());
        if answer.is_none() {
            match &method.sig.output {
                ReturnType::Type(_, ty) => errors.report(ty, RETURNS),
                ReturnType::Default => errors.report(&method.sig.ident, RETURNS),
            }
        }
        let page = page(answer, &method, &parameters, errors);
        let parameter = parameters.iter().find(|(name, _)| *name == LIMIT);
        check_answer(
            answer,
            &order,
            limit.as_ref().map(|(name, _)| name),
            parameter,
            errors,
        );
        if let (Kind::ReadModel, Some(lock)) = (kind, &flags.lock) {
            errors.report(
                lock,
                "read models are not locked: they are read outside of a transaction, and the lock would not last",
            );
        }
        let lock = lock(answer, &flags, errors);
        let mut limits = Vec::new();
        limits.extend(limit.map(|(_, rows)| Rows::of(rows)));
        limits.extend(parameter.map(|(name, ty)| Rows::Parameter((*name).clone(), (*ty).clone())));
        Self {
            condition,
            order,
            limits,
            page,
            answer,
            lock,
            method,
        }
    }
}

/// How the finder locks what it finds:
///
/// - rows that are loaded can be locked, and not those of a page
/// - `skip_locked` goes with `lock`, and not with `one`
/// - `one` asks for an aggregate or an option of one
fn lock(answer: Option<Answer>, flags: &Flags, errors: &mut Errors) -> Option<Lock> {
    let one = flags.one.as_ref();
    if let Some(one) = one
        && !matches!(answer, Some(Answer::AtMostOne | Answer::One) | None)
    {
        errors.report(
            one,
            "`one` is for a finder that returns `Result<A>` or `Result<Option<A>>`: remove it",
        );
    }
    if let (Some(skip), None) = (&flags.skip_locked, &flags.lock) {
        errors.report(
            skip,
            "`skip_locked` says how to lock: write `lock, skip_locked`",
        );
    }
    if let (Some(skip), Some(_)) = (&flags.skip_locked, one) {
        errors.report(
            skip,
            "whether there is one row cannot be told among rows that are skipped: remove `one` or `skip_locked`",
        );
    }
    let lock = flags.lock.as_ref()?;
    match answer {
        Some(Answer::Count | Answer::Exists) => errors.report(
            lock,
            "a finder that returns `u64` or `bool` loads no rows to lock: remove `lock`",
        ),
        Some(Answer::Page) => errors.report(
            lock,
            "a page locks no rows: return `Result<Vec<A>>`, with a limit",
        ),
        _ => {}
    }
    Some(match flags.skip_locked {
        Some(_) => Lock::Skip,
        None => Lock::Wait,
    })
}

/// A count, a test of existence and one row have no order, and only a list has a limit.
fn check_answer(
    answer: Option<Answer>,
    order: &[OrderKey],
    limit: Option<&Ident>,
    parameter: Option<&(&Ident, &Type)>,
    errors: &mut Errors,
) {
    if let Some(key) = order.first() {
        match answer {
            Some(Answer::Count | Answer::Exists) => errors.report(
                &key.field,
                "a finder that returns `u64` or `bool` has no order: remove `order_by`",
            ),
            Some(Answer::AtMostOne | Answer::One) => errors.report(
                &key.field,
                "one row has no order: remove `order_by`, or `one` for the first of several",
            ),
            _ => {}
        }
    }
    if !matches!(answer, Some(Answer::List) | None) {
        for name in limit.into_iter().chain(parameter.map(|(name, _)| *name)) {
            errors.report(
                name,
                "only a finder that returns `Result<Vec<A>>` has a limit: remove it, or give the parameter another name",
            );
        }
    }
}

/// The parameter that says which page: a finder has one exactly where it returns a page.
fn page(
    answer: Option<Answer>,
    method: &TraitItemFn,
    parameters: &[(&Ident, &Type)],
    errors: &mut Errors,
) -> Option<Ident> {
    let mut requests = parameters
        .iter()
        .filter(|(_, ty)| types::last_segment(ty).is_some_and(|last| last.ident == "PageRequest"));
    let request = requests.next();
    match (answer, request) {
        (Some(Answer::Page), None) => errors.report(
            &method.sig.ident,
            "which page? Give the finder a parameter `page: PageRequest`",
        ),
        (Some(Answer::Page), Some(_)) => {
            if let Some((second, _)) = requests.next() {
                errors.report(second, "a finder reads one page: remove this");
            }
        }
        (Some(_), Some((name, _))) => errors.report(
            name,
            "a finder that takes a `PageRequest` returns `Result<Page<A>>`",
        ),
        (_, _) => {}
    }
    request.map(|(name, _)| (*name).clone())
}

/// The parameters that are plain names.
pub(super) fn parameters(method: &TraitItemFn) -> Vec<(&Ident, &Type)> {
    method
        .sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Typed(parameter) => match &*parameter.pat {
                Pat::Ident(name) => Some((&name.ident, &*parameter.ty)),
                _ => None,
            },
            FnArg::Receiver(_) => None,
        })
        .collect()
}

/// What is asked for, by the spelling of the return type; `one` is what else the finder says.
fn answer(output: &ReturnType, one: bool) -> Option<Answer> {
    let ReturnType::Type(_, ty) = output else {
        return None;
    };
    let inner = types::argument_of(ty, "Result")?;
    let last = types::last_segment(inner)?;
    let has_argument = types::first_argument(last).is_some();
    match last.ident.to_string().as_str() {
        "Vec" if has_argument => Some(Answer::List),
        "Page" if has_argument => Some(Answer::Page),
        "Option" if has_argument && one => Some(Answer::AtMostOne),
        "Option" if has_argument => Some(Answer::First),
        "u64" => Some(Answer::Count),
        "bool" => Some(Answer::Exists),
        _ if one && !has_argument => Some(Answer::One),
        _ => None,
    }
}

impl Rows {
    fn of(rows: Expr) -> Self {
        if is_untyped_number(&rows) {
            Self::Literal(rows)
        } else {
            Self::Expression(rows)
        }
    }
}
