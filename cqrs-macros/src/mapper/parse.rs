//! `#[mapper(...)]` on a field, and the rules between its entries.

use syn::ext::IdentExt;
use syn::parse::ParseStream;
use syn::{Attribute, Field, Fields, Ident, LitStr, Path, Type};

use super::{Children, Codec, Filling, Kind, MappedField};
use crate::attribute::{check_sql_name, entries, nested, sql_name, value};
use crate::errors::Errors;
use crate::naming::IDENTIFIER_RULE;
use crate::symbol::{
    AS, CHILDREN, COLUMN, FLATTEN, GENERATED, JSON, MAPPER, ORDER, PARENT, PREFIX, READ_ONLY,
    TABLE, TEXT, WITH,
};
use crate::types;

const ALLOWED: &[&str] = &[
    COLUMN, TEXT, JSON, FLATTEN, PREFIX, WITH, AS, CHILDREN, GENERATED, READ_ONLY,
];
const CHILDREN_EXAMPLE: &str = "table = \"route_stop\"";

/// The entries of a field's `#[mapper(...)]`, each with the key that made it.
#[derive(Default)]
struct Entries {
    column: Option<(Ident, LitStr)>,
    prefix: Option<(Ident, LitStr)>,
    column_type: Option<(Ident, Type)>,
    module: Option<Path>,
    children: Option<Tables>,
    /// `generated`, `read_only`.
    fillings: Vec<Ident>,
    /// `text`, `json`, `flatten`, `with`, `children`: at most one may be there.
    ways: Vec<Ident>,
}

/// What `children(...)` says.
#[derive(Default)]
struct Tables {
    table: Option<LitStr>,
    order: Option<LitStr>,
    parent: Option<LitStr>,
}

impl Tables {
    fn parse(key: &Ident, input: ParseStream) -> syn::Result<Self> {
        let mut found = Self::default();
        let allowed = &[TABLE, ORDER, PARENT];
        nested(key, input, allowed, CHILDREN_EXAMPLE, |name, key, input| {
            let (place, example) = match name {
                TABLE => (&mut found.table, "\"route_stop\""),
                ORDER => (&mut found.order, "\"seq\""),
                _ => (&mut found.parent, "\"route_plan_id\""),
            };
            *place = Some(sql_name(key, input, example)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn check(self, key: &Ident, ty: &Type, errors: &mut Errors) -> Option<Children> {
        let child = types::argument_of(ty, "Vec");
        if child.is_none() {
            errors.report(ty, "children are a `Vec`: write `stops: Vec<Stop>`");
        }
        if self.table.is_none() {
            errors.report(
                key,
                format!("which table are they stored in? Write `{key}({CHILDREN_EXAMPLE})`"),
            );
        }
        Some(Children {
            child: child?.clone(),
            table: self.table?,
            order: self
                .order
                .unwrap_or_else(|| LitStr::new("position", key.span())),
            parent: self.parent,
        })
    }
}

/// The fields of a struct with named fields; reports any other shape.
pub(crate) fn named_fields<'f>(
    fields: &'f Fields,
    ident: &Ident,
    derive: &str,
    errors: &mut Errors,
) -> Vec<(&'f Ident, &'f Field)> {
    let named: Vec<_> = match fields {
        Fields::Named(fields) => fields
            .named
            .iter()
            .filter_map(|field| Some((field.ident.as_ref()?, field)))
            .collect(),
        Fields::Unnamed(_) | Fields::Unit => Vec::new(),
    };
    if named.is_empty() {
        errors.report(
            ident,
            format!("`#[derive({derive})]` needs a struct with named fields, which become columns: write `struct {ident} {{ ... }}`"),
        );
    }
    named
}

impl MappedField {
    /// Reads the mapping of a field. `is_key` fields are stored as they are, in one column.
    pub(crate) fn parse(
        owner: &Ident,
        ident: &Ident,
        field: &Field,
        is_key: bool,
        errors: &mut Errors,
    ) -> Self {
        let found = Entries::parse(&field.attrs, errors);
        if is_key {
            found.check_key(&field.ty, errors);
        }
        let ty = types::without_self(&field.ty, owner);
        let filling = found.check_filling(is_key, errors);
        let kind = found.check(ident, &ty, errors);
        Self {
            ident: ident.clone(),
            ty,
            kind,
            is_key,
            filling,
        }
    }
}

impl Entries {
    fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut found = Self::default();
        entries(attributes, MAPPER, ALLOWED, errors, |name, key, input| {
            match name {
                COLUMN => {
                    found.column = Some((key.clone(), sql_name(key, input, "\"column_name\"")?));
                }
                PREFIX => found.prefix = Some((key.clone(), value(key, input, "\"prefix_\"")?)),
                AS => found.column_type = Some((key.clone(), value(key, input, "i64")?)),
                CHILDREN => {
                    found.ways.push(key.clone());
                    found.children = Some(Tables::parse(key, input)?);
                }
                GENERATED | READ_ONLY => found.fillings.push(key.clone()),
                WITH => {
                    found.module = Some(value(key, input, "path::to::module")?);
                    found.ways.push(key.clone());
                }
                _ => found.ways.push(key.clone()),
            }
            Ok(())
        });
        found
    }

    /// A key is one column, as it is, and never NULL.
    fn check_key(&self, ty: &Type, errors: &mut Errors) {
        for way in &self.ways {
            errors.report(
                way,
                format!("a key is stored in one column as it is: remove `{way}`, and derive `ValueObject` for its type if it is your own"),
            );
        }
        if types::option(ty).is_some() {
            errors.report(
                ty,
                "a key is never NULL: make it a plain type instead of an `Option`",
            );
        }
    }

    /// What is not written is one column, and no key.
    fn check_filling(&self, is_key: bool, errors: &mut Errors) -> Filling {
        let [first, others @ ..] = self.fillings.as_slice() else {
            return Filling::Code;
        };
        for other in others {
            errors.report(
                other,
                format!("`{first}` and `{other}` are two reasons not to write a column: keep one"),
            );
        }
        if is_key {
            errors.report(
                first,
                format!("a key is written when its row is: remove `{first}`"),
            );
        }
        let way = self
            .ways
            .iter()
            .find(|way| *way == FLATTEN || *way == CHILDREN);
        if let Some(way) = way {
            errors.report(
                first,
                format!(
                    "`{first}` is said of one column: with `{way}` write it on the fields in there"
                ),
            );
        }
        if first == GENERATED {
            Filling::Generated
        } else {
            Filling::Others
        }
    }

    /// The rules:
    ///
    /// - one of `text`, `json`, `flatten`, `with`, `children` at most
    /// - `prefix` only with `flatten`, `column` never with it
    /// - `as` only with `with`, and `with` never without it
    /// - a plain SQL name for each column
    fn check(mut self, field: &Ident, ty: &Type, errors: &mut Errors) -> Kind {
        if let [first, others @ ..] = self.ways.as_slice() {
            for other in others {
                errors.report(
                    other,
                    format!("`{first}` and `{other}` are two ways to store one field: keep one"),
                );
            }
        }
        let way = self.ways.first().map(ToString::to_string);
        let is_flatten = way.as_deref() == Some(FLATTEN);
        if let Some((key, _)) = &self.prefix
            && !is_flatten
        {
            errors.report(key, "`prefix` belongs to `flatten`: write `flatten, prefix = \"...\"`, or rename a single column with `column = \"...\"`");
        }
        if let Some((key, _)) = &self.column_type
            && self.module.is_none()
        {
            errors.report(
                key,
                "`as` belongs to `with`: write `with = path::to::module, as = i64`",
            );
        }
        if let (Some(CHILDREN), [key, ..]) = (way.as_deref(), self.ways.as_slice()) {
            if let Some((column, _)) = &self.column {
                errors.report(column, "children have no column in the table of their aggregate: write `order = \"...\"` in `children(...)` for the column of their place");
            }
            let children = self.children.take();
            if let Some(children) = children.and_then(|found| found.check(key, ty, errors)) {
                return Kind::Children(children);
            }
        }
        let default_name = field.unraw().to_string();
        if is_flatten {
            if let Some((key, _)) = &self.column {
                errors.report(key, "a flattened field has no column of its own: write `prefix = \"...\"` to name its columns");
            }
            return Kind::Flatten {
                prefix: prefix(self.prefix, field, &default_name, errors),
            };
        }

        let name = match self.column {
            Some((_, name)) => name,
            None => {
                let name = LitStr::new(&default_name, field.span());
                if check_sql_name(&name).is_err() {
                    errors.report(field, format!("`{default_name}` is not a plain SQL name: name its column with `#[mapper(column = \"...\")]`, of {IDENTIFIER_RULE}"));
                }
                name
            }
        };
        let codec = match (way.as_deref(), self.module, self.column_type) {
            (Some(TEXT), ..) => Codec::Text,
            (Some(JSON), ..) => Codec::Json,
            (Some(WITH), Some(module), Some((_, column_type))) => Codec::With {
                module,
                column_type,
            },
            (Some(WITH), Some(module), None) => {
                errors.report(module, "`with` needs the type of the column: add `as = i64`, or whatever type `to_column` returns");
                Codec::Plain
            }
            _ => Codec::Plain,
        };
        Kind::Column { name, codec }
    }
}

fn prefix(
    given: Option<(Ident, LitStr)>,
    field: &Ident,
    default_name: &str,
    errors: &mut Errors,
) -> LitStr {
    let prefix = match given {
        Some((_, prefix)) => prefix,
        None => LitStr::new(&format!("{default_name}_"), field.span()),
    };
    let text = prefix.value();
    if !text.is_empty() && check_sql_name(&prefix).is_err() {
        errors.push(syn::Error::new(
            prefix.span(),
            format!("{text:?} cannot begin the name of a column: use `prefix = \"...\"` of {IDENTIFIER_RULE}"),
        ));
    }
    prefix
}
