//! The commit in memory.

use std::sync::Arc;

use super::overlay::Overlay;
use super::sourced::take_snapshots;
use super::state::{ReceiptKey, Shared, State};
use super::transaction::InMemoryTransaction;
use crate::context::Metadata;
use crate::envelope::{Envelope, Position, RawPayload};
use crate::error::Result;
use crate::idempotency::{IdempotencyKey, RecordedReceipt};
use crate::inline::Inline;
use crate::process::ProcessTask;
use crate::staging::StagedWrite;
use crate::unit_of_work::CommitReceipt;

/// What a unit of work commits.
pub(super) struct Commit {
    pub(super) shared: Arc<Shared>,
    pub(super) metadata: Metadata,
    pub(super) guards: Vec<StagedWrite>,
    pub(super) writes: Vec<StagedWrite>,
    pub(super) record: Option<Record>,
    pub(super) tasks: Vec<ProcessTask>,
}

/// The receipt that a commit records.
pub(super) struct Record {
    pub(super) place: ReceiptKey,
    pub(super) key: IdempotencyKey,
    pub(super) output: String,
}

/// What a commit would do to the state that it was made for.
struct Plan {
    overlay: Overlay,
    written: Vec<StagedWrite>,
    events: Vec<Envelope<RawPayload>>,
    /// The end of the log. As long as it is there, nobody has committed.
    after: Position,
}

impl Commit {
    /// Checks every write against what is current, and applies them all or none, with the rows of
    /// the inline projections.
    pub(super) async fn run(self, inline: &Inline<InMemoryTransaction>) -> Result<CommitReceipt> {
        let mut changing = self.shared.changes.changing();
        for write in &self.writes {
            write.tables().for_each(|table| changing.add(table));
        }
        let receipt = self.commit(inline).await?;
        take_snapshots(&self.shared, &self.writes);
        Ok(receipt)
    }

    async fn commit(&self, inline: &Inline<InMemoryTransaction>) -> Result<CommitReceipt> {
        if !inline.reads(&self.writes) {
            let mut state = self.shared.lock();
            let plan = self.plan(&state)?;
            return self.finish(&mut state, plan);
        }
        let _turn = self.shared.commits.take().await;
        loop {
            let plan = self.plan(&self.shared.lock())?;
            let mut transaction = InMemoryTransaction::new(Arc::clone(&self.shared));
            inline.apply(&plan.events, &mut transaction).await?;
            let mut state = self.shared.lock();
            // Who commits without inline projections does not wait for the turn.
            if state.end() == plan.after {
                let receipt = self.finish(&mut state, plan)?;
                transaction.apply(&mut state);
                return Ok(receipt);
            }
        }
    }

    fn plan(&self, state: &State) -> Result<Plan> {
        // The overlay of the reads is not good enough: others may have committed since.
        let mut overlay = Overlay::default();
        for guard in self.guards.iter().filter(|guard| !self.is_written(guard)) {
            overlay.check(state, guard)?;
        }
        let mut written = Vec::with_capacity(self.writes.len());
        for write in &self.writes {
            if overlay.write(state, write, &self.metadata)? {
                written.push(write.clone());
            }
        }
        Ok(Plan {
            overlay,
            events: state.next_events(&written, &self.metadata, self.shared.clock.as_ref()),
            written,
            after: state.end(),
        })
    }

    /// Whether the version of a guard is also that of a write, before or after it: then the write
    /// is what checks it.
    fn is_written(&self, guard: &StagedWrite) -> bool {
        let same = |write: &StagedWrite| {
            write.aggregate_type == guard.aggregate_type
                && write.aggregate_id == guard.aggregate_id
                && [write.expected_version, write.new_version].contains(&guard.expected_version)
        };
        self.writes.iter().any(same)
    }

    fn finish(&self, state: &mut State, plan: Plan) -> Result<CommitReceipt> {
        if let Some(Record { place, key, .. }) = &self.record
            && state.receipts.contains_key(place)
        {
            return Err(key.taken());
        }
        state.take_tasks(&self.tasks)?;
        let events: Vec<_> = plan.events.iter().map(Envelope::event_id).collect();
        let position = plan.events.last().map(Envelope::position);
        state.apply(plan.overlay);
        state.append(&plan.written, plan.events);
        if let Some(Record { place, key, output }) = &self.record {
            let receipt = RecordedReceipt {
                fingerprint: key.fingerprint().copied(),
                output: output.clone(),
                events: events.clone(),
                position,
            };
            state.receipts.insert(place.clone(), receipt);
        }
        Ok(CommitReceipt::new(events, position))
    }
}
