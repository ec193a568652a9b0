//! One finder with `#[sql(...)]`: its texts, its parameters, and what it returns.

use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, LitStr, ReturnType, Token, TraitItemFn, Type};

use super::Kind;
use super::finder::parameters;
use super::sql_text::{Marks, locks, scan};
use crate::errors::Errors;
use crate::symbol::{ALL_TENANTS, LOCK, SQL, TENANT, WITHOUT_TENANT};
use crate::types;

/// The database in whose texts `?` and `@` are operators and `$` quotes; in others they may begin
/// parameters.
const OPERATORS_IN: &str = "postgres";
const SAYS: &str = "write `#[sql(\"SELECT ...\")]`, or one text for each database: `#[sql(postgres = \"...\", sqlite = \"...\")]`";
const RETURNS: &str = "a finder with `#[sql]` returns `Result<Vec<T>>` for all rows, `Result<Option<T>>` for the only one, if there is one, or `Result<T>` for the only one";

pub(super) struct SqlFinder {
    pub(super) method: TraitItemFn,
    /// The texts with their parameters numbered, by database.
    pub(super) texts: Vec<(Option<String>, String)>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) tenants: Tenants,
    pub(super) locks: bool,
    pub(super) answer: Option<(Answer, Type)>,
}

pub(super) struct Parameter {
    pub(super) ident: Ident,
    pub(super) name: String,
    pub(super) kind: ParameterKind,
}

/// How a parameter is bound, by the spelling of its type.
pub(super) enum ParameterKind {
    /// A value, or a reference to one.
    Value(Type, Reference),
    /// `&str`.
    Text,
    /// `&[u8]`.
    Bytes,
    /// `&[T]` or `Vec<T>`.
    List(Type),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    No,
    Yes,
}

pub(super) enum Tenants {
    /// The statement mentions `:tenant`.
    One,
    All,
    Without(Ident),
}

#[derive(Clone, Copy)]
pub(super) enum Answer {
    All,
    AtMostOne,
    One,
}

/// What `#[sql(...)]` says.
#[derive(Default)]
struct Said {
    texts: Vec<(Option<Ident>, LitStr)>,
    lock: Option<Ident>,
    all_tenants: Option<Ident>,
    without_tenant: Option<Ident>,
}

impl Said {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut said = Self::default();
        while !input.is_empty() {
            said.entry(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if said.texts.is_empty() {
            return Err(input.error(format!("where is the SQL? {SAYS}")));
        }
        Ok(said)
    }

    fn entry(&mut self, input: ParseStream) -> syn::Result<()> {
        if input.peek(LitStr) {
            let text: LitStr = input.parse()?;
            return self.text(None, text);
        }
        let key = Ident::parse_any(input)?;
        if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            let text: LitStr = input.parse()?;
            return self.text(Some(key), text);
        }
        let flag = match key.to_string().as_str() {
            LOCK => &mut self.lock,
            ALL_TENANTS => &mut self.all_tenants,
            WITHOUT_TENANT => &mut self.without_tenant,
            other => {
                return Err(syn::Error::new(
                    key.span(),
                    format!(
                        "unknown `{other}` in `#[{SQL}(...)]` (allowed here: `{LOCK}`, `{ALL_TENANTS}`, `{WITHOUT_TENANT}`, and texts)"
                    ),
                ));
            }
        };
        match flag.replace(key.clone()) {
            None => Ok(()),
            Some(_) => Err(syn::Error::new(
                key.span(),
                format!("`{key}` is given twice: remove one"),
            )),
        }
    }

    fn text(&mut self, database: Option<Ident>, text: LitStr) -> syn::Result<()> {
        if self.texts.iter().any(|(other, _)| *other == database) {
            let message = match &database {
                Some(database) => format!("`{database}` is given twice: remove one"),
                None => format!("a second text for all databases: {SAYS}"),
            };
            return Err(syn::Error::new(text.span(), message));
        }
        self.texts.push((database, text));
        Ok(())
    }
}

impl SqlFinder {
    pub(super) fn parse(
        attribute: &Attribute,
        method: TraitItemFn,
        kind: Kind,
        errors: &mut Errors,
    ) -> Self {
        let said = match &attribute.meta {
            syn::Meta::List(_) => errors.take(attribute.parse_args_with(Said::parse)),
            _ => {
                errors.report(attribute, format!("where is the SQL? {SAYS}"));
                None
            }
        };
        let is_read = said.is_some();
        let said = said.unwrap_or_default();
        let parameters = bound_parameters(&method, errors);
        let (texts, mentions_tenant) = texts(&said, &parameters, is_read, errors);
        let tenants = tenants(attribute, &said, mentions_tenant, errors);
        if let (Kind::ReadModel, Some(lock)) = (kind, &said.lock) {
            errors.report(
                lock,
                "read models are not locked: they are read outside of a transaction, and the lock would not last",
            );
        }
        let answer = answer(&method.sig.output);
        if answer.is_none() {
            match &method.sig.output {
                ReturnType::Type(_, ty) => errors.report(ty, RETURNS),
                ReturnType::Default => errors.report(&method.sig.ident, RETURNS),
            }
        }
        Self {
            texts,
            parameters,
            tenants,
            locks: said.lock.is_some(),
            answer,
            method,
        }
    }
}

/// The parameters of the method, as they are bound.
fn bound_parameters(method: &TraitItemFn, errors: &mut Errors) -> Vec<Parameter> {
    parameters(method)
        .into_iter()
        .filter_map(|(ident, ty)| {
            let name = ident.unraw().to_string();
            if name == TENANT {
                errors.report(
                    ident,
                    "`:tenant` is bound by the framework, from the scope: give the parameter another name",
                );
                return None;
            }
            let ident = ident.clone();
            let kind = parameter_kind(ty);
            Some(Parameter { ident, name, kind })
        })
        .collect()
}

fn parameter_kind(ty: &Type) -> ParameterKind {
    let is_u8 = |ty: &Type| types::last_segment(ty).is_some_and(|last| last.ident == "u8");
    match ty {
        Type::Reference(reference) => match &*reference.elem {
            Type::Slice(slice) if is_u8(&slice.elem) => ParameterKind::Bytes,
            Type::Slice(slice) => ParameterKind::List((*slice.elem).clone()),
            inner if types::last_segment(inner).is_some_and(|last| last.ident == "str") => {
                ParameterKind::Text
            }
            inner => match types::argument_of(inner, "Vec") {
                Some(element) if !is_u8(element) => ParameterKind::List(element.clone()),
                _ => ParameterKind::Value(inner.clone(), Reference::Yes),
            },
        },
        ty => match types::argument_of(ty, "Vec") {
            Some(element) if !is_u8(element) => ParameterKind::List(element.clone()),
            _ => ParameterKind::Value(ty.clone(), Reference::No),
        },
    }
}

/// The texts with their parameters numbered, and whether they mention the tenant.
///
/// - each text names each parameter
/// - all mention the tenant, or none does
/// - what locks says so
fn texts(
    said: &Said,
    parameters: &[Parameter],
    is_read: bool,
    errors: &mut Errors,
) -> (Vec<(Option<String>, String)>, bool) {
    let mut names: Vec<String> = parameters.iter().map(|one| one.name.clone()).collect();
    names.push(TENANT.to_owned());
    let (mut texts, mut mentions) = (Vec::new(), Vec::new());
    for (database, text) in &said.texts {
        let marks = match database {
            Some(database) if database == OPERATORS_IN => Marks::Operators,
            _ => Marks::Parameters,
        };
        let scanned = match scan(&text.value(), &names, marks) {
            Ok(scanned) => scanned,
            Err(message) => {
                errors.push(syn::Error::new(text.span(), message));
                continue;
            }
        };
        for (number, parameter) in parameters.iter().enumerate() {
            if is_read && !scanned.named.contains(&number) {
                let name = &parameter.name;
                errors.report(
                    &parameter.ident,
                    format!("the statement does not use it: write `:{name}`, or remove it"),
                );
            }
        }
        if said.lock.is_none() && locks(&text.value(), &names) {
            errors.push(syn::Error::new(
                text.span(),
                "locks end with the transaction, and without one at once: write `lock` beside the text",
            ));
        }
        mentions.push(scanned.named.contains(&parameters.len()));
        texts.push((database.as_ref().map(Ident::to_string), scanned.sql));
    }
    let mentions_tenant = mentions.first().copied().unwrap_or(true);
    if let Some(at) = mentions
        .iter()
        .position(|mentions| *mentions != mentions_tenant)
    {
        errors.push(syn::Error::new(
            said.texts[at].1.span(),
            "one text mentions `:tenant` and another does not: let all of them read the rows of one tenant",
        ));
    }
    (texts, mentions_tenant)
}

/// Whose rows the statement reads; it says so in exactly one way.
fn tenants(
    attribute: &Attribute,
    said: &Said,
    mentions_tenant: bool,
    errors: &mut Errors,
) -> Tenants {
    match (mentions_tenant, &said.all_tenants, &said.without_tenant) {
        (true, None, None) => Tenants::One,
        (false, Some(_), None) => Tenants::All,
        (false, None, Some(flag)) => Tenants::Without(flag.clone()),
        (false, None, None) => {
            errors.push(syn::Error::new(
                attribute.span(),
                "whose rows? Restrict them with `:tenant`, as in `WHERE tenant_id = :tenant`; say `all_tenants` for a statement of the system, or `without_tenant` where its tables have none",
            ));
            Tenants::All
        }
        (_, first, second) => {
            for flag in first.iter().chain(second) {
                errors.report(
                    flag,
                    "whose rows? `:tenant`, `all_tenants` or `without_tenant`: keep one",
                );
            }
            Tenants::All
        }
    }
}

/// What is asked for, by the spelling of the return type.
fn answer(output: &ReturnType) -> Option<(Answer, Type)> {
    let ReturnType::Type(_, ty) = output else {
        return None;
    };
    let inner = types::argument_of(ty, "Result")?;
    for (name, answer) in [("Vec", Answer::All), ("Option", Answer::AtMostOne)] {
        if let Some(row) = types::argument_of(inner, name) {
            return Some((answer, row.clone()));
        }
    }
    if types::argument_of(inner, "Page").is_some() {
        return None;
    }
    Some((Answer::One, inner.clone()))
}
