//! Commits, and loads, that may go out with those of others.

use std::slice;

use cqrs_core::staging::StagedWrite;
use cqrs_core::{Changing, Entity, Metadata, Result};

use super::lost;
use crate::backend::{Backend, Parameter, Proof, Written};
use crate::coalesce::{Answer, Coalescer, Commit, Loaded, size};
use crate::reads::{self, Place};
use crate::select::Select;
use crate::store::Shared;

/// How many bytes of texts, documents and payloads a commit, or the key of a load, may have to go out
/// with others, who would wait for it.
const LARGEST: usize = 64 * 1024;

/// Commits writes of a unit of work that has sent nothing, with others where it may.
pub(super) async fn commit<B: Backend>(
    shared: &Shared<B>,
    writes: Vec<StagedWrite>,
    metadata: &Metadata,
    changing: Changing,
) -> Result<Written> {
    let Some(coalescer) = &shared.coalescer else {
        return lost::commit(shared, &writes, metadata).await;
    };
    let write = match <[StagedWrite; 1]>::try_from(writes) {
        Ok([write]) if may_join(&write) => write,
        Ok(writes) => return lost::commit(shared, &writes, metadata).await,
        Err(writes) => return lost::commit(shared, &writes, metadata).await,
    };
    let commit = Box::new(Commit::new(write, metadata.clone(), changing));
    match coalescer.commit(commit).await {
        Answer::Done(written) => Ok(written),
        Answer::Alone(commit, _first) => alone(shared, &commit).await,
        Answer::Unknown(cause) => Err(lost::unknown(cause)),
        Answer::Lost(commit, process) => {
            let proof = Proof::Events(slice::from_ref(&commit.write));
            match lost::resolve(shared, process, proof).await? {
                Some(written) => Ok(written),
                None => alone(shared, &commit).await,
            }
        }
    }
}

async fn alone<B: Backend>(shared: &Shared<B>, commit: &Commit) -> Result<Written> {
    lost::commit(shared, slice::from_ref(&commit.write), &commit.metadata).await
}

/// Whether its row and its events are all that it writes, and small.
fn may_join(write: &StagedWrite) -> bool {
    !write.is_sourced()
        && write.children.is_empty()
        && !write.table.keeps_history()
        && size(write) <= LARGEST
}

/// Loads an entity by its key, with others where it may.
pub(super) async fn load<B: Backend, T: Entity>(
    place: Place<'_, B>,
    select: &Select,
) -> Result<Option<T>> {
    let _first = match loads_of::<B, T>(&place, select) {
        None => None,
        Some(coalescer) => match coalescer.load(select).await {
            Loaded::Read(found) => return found,
            Loaded::Alone(first) => first,
        },
    };
    Ok(reads::entities(place, select).await?.pop())
}

/// Where loads of an entity go out together: outside of transactions, of a row without children, by a
/// small key.
fn loads_of<'p, B: Backend, T: Entity>(
    place: &Place<'p, B>,
    select: &Select,
) -> Option<&'p Coalescer<B>> {
    let (Place::Alone(shared) | Place::Confined(shared, _)) = place else {
        return None;
    };
    let size: usize = select.parameters.iter().map(Parameter::size).sum();
    let is_small = size <= LARGEST && T::table().children().is_empty();
    let may_join = is_small && !shared.row_level_security;
    shared.coalescer.as_ref().filter(|_| may_join)
}
