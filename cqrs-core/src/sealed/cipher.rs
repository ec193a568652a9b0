//! XChaCha20-Poly1305 with random nonces: 192 bits, so that they do not repeat however much is sealed
//! with one key.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::error::SealedError;
use super::subject::Subject;
use crate::context::TenantId;

/// The length of a key.
pub(super) const KEY: usize = 32;
const NONCE: usize = 24;
const TAG: usize = 16;
/// What a box is longer than what is in it.
pub(super) const OVERHEAD: usize = NONCE + TAG;

/// What is sealed under which circumstances: a box does not open under others.
pub(super) struct Circumstances<'a> {
    pub(super) purpose: &'static str,
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) subject: &'a Subject,
}

impl Circumstances<'_> {
    /// Neither tenants nor subjects are empty or have a NUL, so no two are the same bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let tenant = self.tenant.map_or("", TenantId::as_str);
        let parts = [self.purpose, tenant, self.subject.as_str()];
        parts.join("\0").into_bytes()
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SealedError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SealedError::Random)?;
    Ok(bytes)
}

/// Nonce, cipher text and tag.
pub(super) fn seal(
    key: &[u8; KEY],
    around: &Circumstances<'_>,
    plain: &[u8],
) -> Result<Vec<u8>, SealedError> {
    let nonce: [u8; NONCE] = random()?;
    let payload = Payload {
        msg: plain,
        aad: &around.to_bytes(),
    };
    let cipher = XChaCha20Poly1305::new(key.into());
    let text = cipher
        .encrypt(&XNonce::from(nonce), payload)
        .expect("a message is less than 256 GiB");
    Ok([nonce.as_slice(), &text].concat())
}

/// What is in a box; `None` where it was altered, or the key or the circumstances are others.
pub(super) fn open(
    key: &[u8; KEY],
    around: &Circumstances<'_>,
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE>()?;
    let payload = Payload {
        msg: text,
        aad: &around.to_bytes(),
    };
    let cipher = XChaCha20Poly1305::new(key.into());
    let plain = cipher.decrypt(&XNonce::from(*nonce), payload);
    plain.ok().map(Zeroizing::new)
}
