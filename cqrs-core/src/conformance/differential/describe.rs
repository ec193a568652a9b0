//! What can be seen, as text without what is the store's own.

use crate::aggregate::Root;
use crate::envelope::{Envelope, RawPayload};
use crate::error::Error;

pub(super) fn root<E>(root: &Root<E>) -> String {
    format!(
        "version {} of {:?}, {:?}",
        root.version(),
        root.tenant(),
        root.stamps()
    )
}

pub(super) fn error(error: &Error) -> String {
    match error {
        Error::Store(error) => format!("{:?}", error.kind()),
        Error::Domain(_) | Error::Other(_) => error.to_string(),
        error => format!("{error:?}"),
    }
}

pub(super) fn event(event: &Envelope<RawPayload>) -> String {
    format!(
        "{} {} v{} {} s{} {:?} of {:?} at {} by {:?}: {} {}",
        event.aggregate_type(),
        event.aggregate_id_str(),
        event.aggregate_version(),
        event.event_type(),
        event.schema_version(),
        event.schema_id(),
        event.tenant(),
        event.occurred_at(),
        event.metadata(),
        event.payload().as_str(),
        event.content_hash(),
    )
}
