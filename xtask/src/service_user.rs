//! The user that a server runs as when root starts it.

use std::process::Command;

use crate::failure::{Failure, Result};

/// An account without privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceUser {
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The account to run Postgres as, which refuses to run as root; `None` if we are not root.
///
/// # Errors
///
/// When we are root and there is neither a user `postgres` nor a user `nobody`.
pub(crate) fn for_postgres() -> Result<Option<ServiceUser>> {
    if !is_root()? {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| {
            Some(ServiceUser {
                name,
                uid: id(&["-u", name])?,
                gid: id(&["-g", name])?,
            })
        })
        .map(Some)
        .ok_or_else(|| {
            Failure::new(
                "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to \
                 run it as; create one, or run this as another user",
            )
        })
}

/// Whether this process runs as root.
///
/// # Errors
///
/// When the program `id` does not work.
pub(crate) fn is_root() -> Result<bool> {
    id(&["-u"])
        .map(|uid| uid == 0)
        .ok_or_else(|| Failure::new("cannot find out the current user: `id -u` failed"))
}

/// What `id` prints; asking it covers accounts that stand in no `/etc/passwd`.
fn id(args: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(args).output().ok()?;
    if !output.status.success() {
        return None;
    }
    str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_account_has_no_id() {
        assert_eq!(id(&["-u", "no-such-account"]), None);
        assert!(id(&["-u"]).is_some());
    }
}
