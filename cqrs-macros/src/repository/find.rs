//! The arguments of `#[find(...)]`.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, Ident, Meta, Token};

use super::parse::single_ident;
use crate::errors::Errors;
use crate::symbol::{LIMIT, LOCK, ONE, ORDER_BY, SKIP_LOCKED};

/// What `#[find(...)]` says, in Rust expressions.
#[derive(Default)]
pub(super) struct Find {
    pub(super) condition: Option<Expr>,
    pub(super) order: Vec<OrderKey>,
    pub(super) limit: Option<(Ident, Expr)>,
    pub(super) flags: Flags,
}

/// The words that stand alone.
#[derive(Default)]
pub(super) struct Flags {
    /// One row is expected; a second is an error.
    pub(super) one: Option<Ident>,
    /// What is found is locked.
    pub(super) lock: Option<Ident>,
    /// What others have locked is left out.
    pub(super) skip_locked: Option<Ident>,
}

impl Flags {
    /// The flag of this name.
    fn of(&mut self, name: &Ident) -> Option<&mut Option<Ident>> {
        match name.to_string().as_str() {
            ONE => Some(&mut self.one),
            LOCK => Some(&mut self.lock),
            SKIP_LOCKED => Some(&mut self.skip_locked),
            _ => None,
        }
    }
}

/// `priority.desc()`.
pub(super) struct OrderKey {
    pub(super) field: Ident,
    pub(super) direction: Ident,
}

impl Find {
    pub(super) fn parse(attribute: &Attribute, errors: &mut Errors) -> Self {
        let mut find = Self::default();
        if matches!(attribute.meta, Meta::Path(_)) {
            return find;
        }
        let parser = Punctuated::<Expr, Token![,]>::parse_terminated;
        let Some(arguments) = errors.take(attribute.parse_args_with(parser)) else {
            return find;
        };
        for argument in arguments {
            if let Some(name) = word(&argument)
                && let Some(flag) = find.flags.of(name)
            {
                if flag.replace(name.clone()).is_some() {
                    errors.report(name, format!("`{name}` is given twice: keep one"));
                }
                continue;
            }
            match clause(&argument) {
                Some((name, clause)) if name == ORDER_BY => {
                    if !find.order.is_empty() {
                        errors.report(name, "`order_by` is given twice: write one with all its keys, `order_by(priority.desc(), created_at.asc())`");
                    }
                    let keys = &clause.args;
                    if keys.is_empty() {
                        errors.report(name, "by what? Write `order_by(priority.desc())`");
                    }
                    find.order
                        .extend(keys.iter().filter_map(|key| errors.take(order_key(key))));
                }
                Some((name, clause)) => {
                    if find.limit.is_some() {
                        errors.report(name, "`limit` is given twice: keep one");
                    }
                    let mut rows = clause.args.iter();
                    match (rows.next(), rows.next()) {
                        (Some(rows), None) => find.limit = Some((name.clone(), rows.clone())),
                        _ => errors.report(name, "how many? Write `limit(20)`"),
                    }
                }
                None if find.condition.is_some() => {
                    errors.report(argument, "a second condition: join the two with `&&`");
                }
                None => find.condition = Some(argument),
            }
        }
        find
    }
}

/// An argument that is one word.
fn word(argument: &Expr) -> Option<&Ident> {
    match argument {
        Expr::Path(path) if path.qself.is_none() => single_ident(&path.path),
        _ => None,
    }
}

/// `order_by(...)` or `limit(...)`.
fn clause(argument: &Expr) -> Option<(&Ident, &syn::ExprCall)> {
    let Expr::Call(call) = argument else {
        return None;
    };
    let Expr::Path(function) = &*call.func else {
        return None;
    };
    let name = single_ident(&function.path)?;
    (name == ORDER_BY || name == LIMIT).then_some((name, call))
}

fn order_key(key: &Expr) -> syn::Result<OrderKey> {
    let wrong = || {
        syn::Error::new_spanned(
            key,
            "a key of the order is a field with its direction: write `priority.asc()` or `priority.desc()`",
        )
    };
    let Expr::MethodCall(call) = key else {
        return Err(wrong());
    };
    let Expr::Path(field) = &*call.receiver else {
        return Err(wrong());
    };
    let is_direction = call.method == "asc" || call.method == "desc";
    match single_ident(&field.path) {
        Some(field) if is_direction && call.args.is_empty() => Ok(OrderKey {
            field: field.clone(),
            direction: call.method.clone(),
        }),
        _ => Err(wrong()),
    }
}
