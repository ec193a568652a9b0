//! Sealed fields: personal data that is encrypted with a key for each subject. Forgetting the subject
//! destroys the key, and with it the data, wherever it is: in the log, in rows, in backups of them.
//!
//! A [`Sealed<T>`] is cipher text from the moment it exists. Aggregates, events, read models, commands
//! and snapshots hold it, serialize it and store it as any other value, and nothing of the framework
//! has a key: so there is nowhere where plain text could stay behind. Who needs it asks for the key,
//! from the store's [`SubjectKeys`]: a command with [`key`](SubjectKeys::key) to seal, a query with
//! [`ring`](SubjectKeys::ring) to open.
//!
//! # Example
//!
//! ```
//! use cqrs_core::sealed::{Forgotten, Sealed, Sealing, Subject};
//! use cqrs_core::{InMemoryStore, RequestContext, TenantId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> cqrs_core::Result<()> {
//! let store = InMemoryStore::new();
//! let context = RequestContext::tenant(TenantId::new("north")?);
//! let keys = store.subject_keys(&context);
//!
//! let customer = Subject::new("customer-7")?;
//! let name: Sealed<String> = keys.key(&customer).await?.seal(&"Ada Lovelace".to_owned())?;
//! assert!(!format!("{name:?}").contains("Ada"));
//!
//! let ring = keys.ring([name.subject()]).await?;
//! assert_eq!(ring.open(&name)?, Ok("Ada Lovelace".to_owned()));
//!
//! keys.forget(&customer).await?;
//! let ring = keys.ring([name.subject()]).await?;
//! assert_eq!(ring.open(&name)?, Err(Forgotten::of(customer)));
//! # Ok(())
//! # }
//! ```

mod cipher;
mod column;
mod error;
mod key;
mod keys;
mod master;
mod subject;
mod text;
mod value;

pub use error::{Forgotten, SealedError};
pub use key::{KeyRing, SecretKey, SubjectKey};
pub use keys::{KeyState, KeyStore, Sealing, SubjectKeys};
pub use master::{MasterKey, MasterKeys, StoredSecret};
pub use subject::{InvalidSubject, Subject};
pub use text::NotSealed;
pub use value::Sealed;
