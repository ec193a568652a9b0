//! Where statements say whose rows they are about.
//!
//! **Architecture invariant:** every condition on a tenant is written by [`equals`], at a site of
//! its own. A test takes the condition out of one site after the other and requires that the
//! checks of isolation fail each time: a site that no check watches is a failing test, and one that
//! is written past this file is found by the test below.

macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident,)*) => {
        /// A place at which a statement is confined to a tenant.
        #[cfg_attr(
            not(feature = "__tenancy-mutations"),
            allow(unreachable_pub, reason = "only the tests of isolation reach it")
        )]
        #[cfg_attr(
            not(all(feature = "postgres", feature = "sealed")),
            allow(dead_code, reason = "some sites are statements of a feature")
        )]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[doc(hidden)]
        pub enum TenantSite {
            $($(#[$doc])* $site,)*
        }

        #[cfg(feature = "__tenancy-mutations")]
        impl TenantSite {
            /// Every site.
            pub const ALL: &'static [Self] = &[$(Self::$site),*];
        }
    };
}

sites! {
    /// The row with a key.
    ByKey,
    /// The rows with keys that several callers ask for.
    ByKeys,
    /// The rows that a query selects.
    Rows,
    /// The keys of rows that have children, and are locked by a query.
    LockedRows,
    /// The children of the rows that are selected.
    Children,
    /// A condition on any of them.
    AnyChild,
    /// Rows of children that are changed or removed.
    ChildRows,
    /// Their number.
    Count,
    /// Whether there is one.
    Exists,
    /// A page of them.
    Page,
    /// The total of a page.
    PageTotal,
    /// The rows that a bulk change reaches.
    BulkRows,
    /// The guard of a write to one row.
    GuardOne,
    /// The guard of a write to rows of a transaction.
    GuardMany,
    /// The rows that are locked before they are written.
    GuardLock,
    /// The version of rows that were not written.
    GuardVersion,
    /// Rows of a read model that are loaded by their addresses.
    LoadRows,
    /// Rows of a read model that are replaced.
    ReplaceRows,
    /// Rows of a read model that are deleted.
    DeleteRows,
    /// The receipt under an idempotency key.
    Receipt,
    /// Events of the log.
    Log,
    /// Events of the log that are folded when they are read.
    LiveLog,
    /// The events of one event-sourced aggregate.
    Stream,
    /// Its snapshot.
    Snapshot,
    /// Its events after the snapshot.
    StreamAfterSnapshot,
    /// The events of one up to a version or a time.
    StreamAsOf,
    /// The events of one aggregate, sourced or not.
    StreamEvents,
    /// The event behind which one is appended.
    StreamHead,
    /// The version of a stream to which nothing was appended.
    StreamVersion,
    /// Old events that are removed.
    Retention,
    /// The children of aggregates of which a revision is kept.
    HistoryChildren,
    /// A page of the revisions of one aggregate.
    History,
    /// Their number.
    HistoryTotal,
    /// The revision of one at a version or a time.
    HistoryAsOf,
    /// The first revision of one that is kept.
    HistoryFirst,
    /// Old revisions that are removed.
    HistoryRetention,
    /// The keys of subjects.
    SubjectKey,
    /// Those that are put under another master key.
    RewrappedKeys,
    /// The policy of row-level security.
    Policy,
}

/// The condition that a column holds the tenant.
pub(crate) fn equals(site: TenantSite, column: &str, tenant: &str) -> String {
    let condition = format!("{column} = {tenant}");
    if is_open(site) {
        // The parameter stays, so that it is the rows that differ and not the statement that fails.
        return format!("({condition} OR 1 = 1)");
    }
    condition
}

/// Whether the site lets every tenant through: in a test alone.
#[cfg(feature = "__tenancy-mutations")]
pub(crate) fn is_open(site: TenantSite) -> bool {
    mutation::is_open(site)
}

#[cfg(not(feature = "__tenancy-mutations"))]
pub(crate) const fn is_open(_: TenantSite) -> bool {
    false
}

/// Opening sites, for tests of the checks of isolation.
#[cfg(feature = "__tenancy-mutations")]
pub mod mutation {
    use std::cell::Cell;

    use super::TenantSite;

    thread_local! {
        static OPEN: Cell<Option<TenantSite>> = const { Cell::new(None) };
        static PASSED: Cell<usize> = const { Cell::new(0) };
    }

    /// Opens a site for the statements that this thread builds while it lives. A store keeps the
    /// texts that it has built, so it must be made within.
    #[derive(Debug)]
    pub struct Opened(());

    impl Opened {
        /// Opens the site; `None` opens none.
        #[must_use]
        pub fn site(site: Option<TenantSite>) -> Self {
            OPEN.set(site);
            PASSED.set(0);
            Self(())
        }

        /// How many conditions were left out.
        #[must_use]
        pub fn conditions(&self) -> usize {
            PASSED.get()
        }
    }

    impl Drop for Opened {
        fn drop(&mut self) {
            OPEN.set(None);
        }
    }

    pub(super) fn is_open(site: TenantSite) -> bool {
        let open = OPEN.get() == Some(site);
        if open {
            PASSED.set(PASSED.get() + 1);
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Files that know of tenants, and write no condition on one themselves: they bind values, read
    /// columns, create tables, or call [`super::equals`].
    const KNOWN: &[&str] = &[
        "backend/columns.rs",
        "backend/mod.rs",
        "backend/postgres/bulk.rs",
        "backend/postgres/events.rs",
        "backend/postgres/loads.rs",
        "backend/postgres/row_security.rs",
        "backend/postgres/rows.rs",
        "backend/postgres/write.rs",
        "backend/postgres/write/append.rs",
        "backend/postgres/write/guard.rs",
        "backend/postgres/write/history.rs",
        "backend/rows.rs",
        "backend/schema.rs",
        "backend/sqlite/error.rs",
        "backend/sqlite/rows.rs",
        "backend/sqlite/write.rs",
        "backend/sqlite/write/append.rs",
        "backend/sqlite/write/history.rs",
        "history.rs",
        "integrity.rs",
        "log.rs",
        "maintenance.rs",
        "projector/dead_letters.rs",
        "projector/letter.rs",
        "reads.rs",
        "retention.rs",
        "select.rs",
        "select/bulk.rs",
        "select/family.rs",
        "sourced.rs",
        "sql.rs",
        "verify.rs",
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("a folder can be listed").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The code of a file without its comments and without its tests.
    fn code(source: &str) -> String {
        let code = source.split("#[cfg(test)]\nmod tests {").next();
        let lines = code.unwrap_or_default().lines();
        let lines = lines.filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn conditions_on_tenants_are_written_here_alone() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        for file in files {
            let name = file.strip_prefix(&root).expect("below the root");
            let name = name.to_string_lossy().replace('\\', "/");
            if ["tenancy.rs", "tests.rs", "fixture.rs"]
                .iter()
                .any(|end| name.ends_with(end))
            {
                continue;
            }
            let code = code(&fs::read_to_string(&file).expect("a source is text"));
            for condition in ["tenant_id =", "tenant_id\\\" =", "scope = $"] {
                assert!(
                    !code.contains(condition),
                    "{name} writes a condition on a tenant: use `tenancy::equals`, with a site"
                );
            }
            let knows = ["ColumnRole::Tenant", "is_tenant()", "tenant_id"]
                .iter()
                .any(|word| code.contains(word));
            assert!(
                !knows || KNOWN.contains(&name.as_str()),
                "{name} knows of tenants: its conditions come from `tenancy::equals`, each with a \
                 site that a check of isolation watches; then list it here"
            );
        }
    }
}
