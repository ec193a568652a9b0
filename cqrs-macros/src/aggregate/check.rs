//! The rules of an aggregate:
//!
//! - a table and an event; no table where it is event-sourced, nor anything about one
//! - one id and one root
//! - no field that looks like a column of the framework
//! - no two columns of one name

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::{Ident, Type};

use super::parse::Parsed;
use super::{Framework, Model, Shape, Storage};
use crate::errors::Errors;
use crate::mapper::{MappedField, check_columns};
use crate::symbol::{AUDIT, HISTORY, SNAPSHOT, SOFT_DELETE, TABLE};

pub(super) fn check(parsed: Parsed, errors: &mut Errors) -> Option<Model> {
    check_sourced(&parsed, errors);
    if parsed.table.is_none() && !parsed.sourced && parsed.is_container_read {
        errors.report(
            &parsed.ident,
            "which table is it stored in? Write `#[aggregate(table = \"route_plan\", ...)]`",
        );
    }
    if parsed.event.is_none() && parsed.is_container_read {
        errors.report(
            &parsed.ident,
            "what happens to it? Write `#[aggregate(event = RoutePlanEvent, ...)]` with a type that derives `DomainEvent`",
        );
    }
    let framework = Framework {
        tenant: parsed.tenant.as_ref().map(syn::LitStr::value),
        audit: parsed.audit,
        soft_delete: parsed.soft_delete,
        history: parsed.history,
        chained: parsed.chained,
    };
    framework.check_tenant(&parsed, errors);
    for field in &parsed.fields {
        framework.check_field(field, errors);
    }
    check_columns(&parsed.fields, errors);
    let (id, root) = if parsed.are_fields_read {
        (
            exactly_one(&parsed.ident, &parsed.ids, "id", "id: Id<Self>", errors),
            exactly_one(
                &parsed.ident,
                &parsed.roots,
                "root",
                "root: Root<Event>",
                errors,
            ),
        )
    } else {
        (None, None)
    };
    Some(Model {
        vis: parsed.vis,
        ident: parsed.ident,
        krate: parsed.krate,
        event: parsed.event?,
        framework,
        id: id?,
        root: root?,
        allow_deprecated: parsed.allow_deprecated,
        storage: if parsed.sourced {
            Storage::Events {
                state: parsed.state,
                snapshot: parsed.snapshot,
            }
        } else {
            Storage::Row {
                table: parsed.table?.value(),
                shape: match parsed.row {
                    Some(row) => Shape::Row(row),
                    None => Shape::Fields(parsed.fields),
                },
            }
        },
    })
}

/// What is about a table has no meaning where there is none, and snapshots only there.
fn check_sourced(parsed: &Parsed, errors: &mut Errors) {
    if !parsed.sourced {
        if let Some(key) = parsed.keys.iter().find(|key| *key == SNAPSHOT) {
            errors.report(
                key,
                "snapshots are of event-sourced aggregates: write `sourced` too, or remove this",
            );
        }
        return;
    }
    for key in &parsed.keys {
        if key == TABLE {
            errors.report(key, "an event-sourced aggregate has no table: its events are in the log; remove `table`");
        } else if key == AUDIT {
            errors.report(key, "its events say who changed it and when, and `root.stamps()` has that: remove `audit`");
        } else if key == SOFT_DELETE {
            errors.report(
                key,
                "a removal is an event, after which the others stay: remove `soft_delete`",
            );
        } else if key == HISTORY {
            errors.report(
                key,
                "its events are its history, and `find_as_of` folds them: remove `history`",
            );
        }
    }
    if let Some(tenant) = &parsed.tenant
        && tenant.value() != "tenant_id"
    {
        errors.report(
            tenant,
            "an event-sourced aggregate has no columns: write just `tenant`",
        );
    }
    if let Some(row) = &parsed.row {
        errors.report(
            row,
            "an event-sourced aggregate has no columns: remove `row`",
        );
    }
}

fn exactly_one(
    owner: &Ident,
    found: &[(Ident, Type)],
    role: &str,
    example: &str,
    errors: &mut Errors,
) -> Option<(Ident, Type)> {
    let [first, others @ ..] = found else {
        errors.report(
            owner,
            format!("no field is the {role}: write `#[aggregate({role})]` on one, as in `#[aggregate({role})] {example}`"),
        );
        return None;
    };
    for (other, _) in others {
        errors.report(
            other,
            format!("`{}` is the {role} already: an aggregate has one", first.0),
        );
    }
    Some(first.clone())
}

impl Framework {
    /// The columns that the framework keeps for this aggregate, each with its reason.
    fn columns(&self) -> Vec<(&str, &'static str)> {
        let mut columns = vec![("version", "every aggregate has")];
        if let Some(tenant) = &self.tenant {
            columns.push((tenant, "`tenant` adds"));
        }
        if self.audit {
            for name in ["created_at", "created_by", "updated_at", "updated_by"] {
                columns.push((name, "`audit` adds"));
            }
        }
        if self.soft_delete {
            for name in ["deleted_at", "deleted_by"] {
                columns.push((name, "`soft_delete` adds"));
            }
        }
        if self.chained {
            columns.push(("chain_head", "`chained` adds"));
        }
        columns
    }

    /// A tenant column may not be named as another column of the framework.
    fn check_tenant(&self, parsed: &Parsed, errors: &mut Errors) {
        let Some(tenant) = &parsed.tenant else { return };
        let name = tenant.value();
        let clashes = self
            .columns()
            .iter()
            .filter(|(column, _)| *column == name)
            .count();
        if clashes > 1 {
            errors.report(tenant, format!("the framework keeps another column named {name:?}: name the tenant's column otherwise"));
        }
    }

    fn check_field(&self, field: &MappedField, errors: &mut Errors) {
        let ident = field.ident.unraw().to_string();
        let column = field.column();
        for (reserved, reason) in self.columns() {
            let is_typed = reserved == "version" || self.audit && is_audit(reserved);
            if column
                .as_ref()
                .is_some_and(|(column, _)| column == reserved)
            {
                report_reserved(field.ident.span(), reserved, reason, errors);
            } else if is_typed && ident == reserved {
                errors.push(syn::Error::new(
                    field.ident.span(),
                    format!("conditions know the column {reserved:?}, which {reason}, by this name: give the field another one"),
                ));
            }
        }
    }
}

fn is_audit(name: &str) -> bool {
    matches!(
        name,
        "created_at" | "created_by" | "updated_at" | "updated_by"
    )
}

fn report_reserved(span: Span, column: &str, reason: &str, errors: &mut Errors) {
    let instead = match column {
        "version" => "read it with `root.version()`",
        "deleted_at" | "deleted_by" => "read it with `root.stamps()`",
        "chain_head" => "it is nobody else's",
        _ if is_audit(column) => "read it with `root.stamps()`",
        _ => "read it with `root.tenant()`",
    };
    errors.push(syn::Error::new(
        span,
        format!("the framework keeps the column {column:?}, which {reason}: {instead}, or give the field another name or `#[mapper(column = \"...\")]`"),
    ));
}
