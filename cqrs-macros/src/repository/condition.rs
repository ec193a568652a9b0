//! From a Rust expression over fields to an expression that makes a specification.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{BinOp, Expr, Ident, Lit, Path, UnOp};

use super::parse::single_ident;
use crate::errors::Errors;
use crate::symbol::SPECIFICATION;

const OPERAND: &str = "a condition compares fields: write `priority >= min`, join with `&&`, `||` and `!`, or ask `note.is_null()`";

/// The methods of a typed field whose arguments are values of its type.
const COMPARING: [&str; 8] = ["eq", "ne", "lt", "le", "gt", "ge", "between", "in_"];

/// Translates conditions; `specifications` are the parameters that are one already.
pub(super) struct Conditions<'a> {
    pub(super) krate: &'a Path,
    pub(super) specifications: &'a [Ident],
    pub(super) errors: &'a mut Errors,
}

impl Conditions<'_> {
    /// ```text
    /// status == RouteStatus::Ready && !(priority < min || note.is_null()) && active
    ///
    /// (__fields.status.eq(RouteStatus::Ready)
    ///     & !(__fields.priority.lt(min) | __fields.note.is_null()))
    ///     & __fields.active.eq(true)
    /// ```
    pub(super) fn translate(&mut self, expression: &Expr) -> TokenStream {
        match expression {
            Expr::Paren(paren) => self.translate(&paren.expr),
            Expr::Group(group) => self.translate(&group.expr),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = self.translate(&unary.expr);
                quote!(::core::ops::Not::not(#inner))
            }
            Expr::Binary(binary) => match binary.op {
                BinOp::And(_) => {
                    let (left, right) = (self.translate(&binary.left), self.translate(&binary.right));
                    quote!(::core::ops::BitAnd::bitand(#left, #right))
                }
                BinOp::Or(_) => {
                    let (left, right) = (self.translate(&binary.left), self.translate(&binary.right));
                    quote!(::core::ops::BitOr::bitor(#left, #right))
                }
                ref operator => match comparison(operator) {
                    Some(method) => self.compare(&binary.left, method, &binary.right),
                    None => self.refuse(operator, "a condition is made of `==`, `!=`, `<`, `<=`, `>`, `>=`, `&&`, `||`, `!`: compute other values on the right side of a comparison"),
                },
            },
            Expr::MethodCall(call) => match self.field(&call.receiver) {
                Some(field) => {
                    let method = &call.method;
                    let arguments = call.args.iter().map(|argument| {
                        if COMPARING.iter().any(|name| method == name) {
                            self.typed_value(&field, argument)
                        } else {
                            quote!(#argument)
                        }
                    });
                    let span = Span::call_site().located_at(method.span());
                    quote_spanned!(span=> #field.#method(#(#arguments),*))
                }
                None => TokenStream::new(),
            },
            Expr::Field(_) => match self.field(expression) {
                Some(field) => quote!(#field.eq(true)),
                None => TokenStream::new(),
            },
            Expr::Path(path) => match single_ident(&path.path) {
                Some(name) if self.specifications.contains(name) => quote!(#name),
                Some(name) if name == SPECIFICATION => self.refuse(
                    name,
                    "which one? Add the parameter `specification: Specification<...>`",
                ),
                Some(name) => {
                    let field = typed_field(name);
                    quote!(#field.eq(true))
                }
                None => self.refuse(expression, OPERAND),
            },
            _ => self.refuse(expression, OPERAND),
        }
    }

    fn compare(&mut self, left: &Expr, method: &str, right: &Expr) -> TokenStream {
        if is_none(right) {
            return self.refuse(
                right,
                "a comparison with NULL is never true: write `field.is_null()` or `!field.is_null()`",
            );
        }
        let Some(field) = self.field(left) else {
            return TokenStream::new();
        };
        let right = without_parentheses(right);
        let span = Span::call_site().located_at(syn::spanned::Spanned::span(right));
        let method = Ident::new(method, span);
        let value = self.typed_value(&field, right);
        quote_spanned!(span=> #field.#method(#value))
    }

    /// A value to compare the field with: numbers without a type, also in an array, take its type.
    fn typed_value(&self, field: &TokenStream, value: &Expr) -> TokenStream {
        let span = Span::call_site().located_at(syn::spanned::Spanned::span(value));
        match value {
            Expr::Array(array) => {
                let elements = array
                    .elems
                    .iter()
                    .map(|value| self.typed_value(field, value));
                quote_spanned!(span=> [#(#elements),*])
            }
            value if is_untyped_number(value) => {
                let krate = self.krate;
                quote_spanned!(span=> #krate::__private::value_of(#field, #value))
            }
            value => quote!(#value),
        }
    }

    /// The field on the left side of a comparison: `priority`, `depot.x`, or
    /// `details.key("city").as_text()`.
    fn field(&mut self, expression: &Expr) -> Option<TokenStream> {
        match without_parentheses(expression) {
            Expr::Path(path) => {
                if let Some(name) = single_ident(&path.path).filter(|name| *name != "self") {
                    return Some(typed_field(name));
                }
            }
            Expr::Field(field) => {
                let member = &field.member;
                return self.field(&field.base).map(|base| quote!(#base.#member));
            }
            Expr::MethodCall(call) => {
                let (method, arguments) = (&call.method, &call.args);
                let receiver = self.field(&call.receiver);
                return receiver.map(|receiver| quote!(#receiver.#method(#arguments)));
            }
            _ => {}
        }
        self.refuse(expression, "the left side is a field of the aggregate: write `priority >= min`, with the value on the right");
        None
    }

    fn refuse(&mut self, tokens: impl quote::ToTokens, message: &str) -> TokenStream {
        self.errors.report(tokens, message);
        TokenStream::new()
    }
}

/// The field of this name; rustc says where there is none.
pub(super) fn typed_field(name: &Ident) -> TokenStream {
    let fields = fields_variable();
    quote!(#fields.#name)
}

/// The variable that holds the typed fields. Its hygiene keeps the user's expressions away.
pub(super) fn fields_variable() -> Ident {
    Ident::new("__fields", Span::mixed_site())
}

fn comparison(operator: &BinOp) -> Option<&'static str> {
    Some(match operator {
        BinOp::Eq(_) => "eq",
        BinOp::Ne(_) => "ne",
        BinOp::Lt(_) => "lt",
        BinOp::Le(_) => "le",
        BinOp::Gt(_) => "gt",
        BinOp::Ge(_) => "ge",
        _ => return None,
    })
}

/// Whether it is made of numbers without a type, which then take that of the field. Elsewhere the
/// compiler would take `i32` or `f64`, and find no conversion to a `u32` or an `f32`.
pub(super) fn is_untyped_number(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.suffix().is_empty(),
            Lit::Float(number) => number.suffix().is_empty(),
            _ => false,
        },
        Expr::Paren(paren) => is_untyped_number(&paren.expr),
        Expr::Unary(unary) => matches!(unary.op, UnOp::Neg(_)) && is_untyped_number(&unary.expr),
        Expr::Binary(binary) => is_untyped_number(&binary.left) && is_untyped_number(&binary.right),
        _ => false,
    }
}

fn is_none(expression: &Expr) -> bool {
    matches!(expression, Expr::Path(path) if path.path.is_ident("None"))
}

/// In an argument list they would be superfluous, and rustc would say so.
fn without_parentheses(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(paren) => without_parentheses(&paren.expr),
        Expr::Group(group) => without_parentheses(&group.expr),
        expression => expression,
    }
}
