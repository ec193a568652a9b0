//! Keys of subjects, for commands that seal.

use sha2::{Digest, Sha256};

use crate::context::TenantId;
use crate::sealed::{SecretKey, Subject, SubjectKey};

/// The key of a subject, without a store: the same one each time for the same tenant and subject, so
/// that a test opens with one what it has sealed with another. Never a key for anything that is kept.
///
/// # Example
///
/// ```
/// use cqrs_core::TenantId;
/// use cqrs_core::sealed::Subject;
/// use cqrs_core::testing::subject_key;
///
/// let (north, ada) = (TenantId::new("north")?, Subject::new(7)?);
/// let email = subject_key(Some(&north), &ada).seal(&"ada@example.org".to_owned())?;
/// let opened = subject_key(Some(&north), &ada).open(&email)?;
/// assert_eq!(opened, "ada@example.org");
/// # Ok::<(), cqrs_core::Error>(())
/// ```
#[must_use]
pub fn subject_key(tenant: Option<&TenantId>, subject: &Subject) -> SubjectKey {
    let of = (tenant.map(TenantId::as_str), subject.as_str());
    let secret = Sha256::digest(format!("a key for tests: {of:?}"));
    SubjectKey::new(
        tenant.cloned(),
        subject.clone(),
        SecretKey::from_bytes(secret.into()),
    )
}
