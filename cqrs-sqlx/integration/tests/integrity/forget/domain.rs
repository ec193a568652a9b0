//! What holds personal data besides the fixtures of the conformance suite: children, a chain, a
//! process manager, an event bus that refuses, and a projection that has keys.

use std::sync::{Arc, Mutex};

use cqrs_core::conformance::fixtures::PersonEvent;
use cqrs_core::process::{Instance, Next, ProcessManager};
use cqrs_core::sealed::{Forgotten, Sealed, SubjectKeys};
use cqrs_core::{
    Aggregate, Child, DomainEvent, Envelope, Error, EventBus, Projection, RawPayload, Result, Root,
    UnitOfWork,
};
use cqrs_integration::each::Kind;
use cqrs_sqlx::SqlTransaction;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "household")]
pub(super) enum HouseholdEvent {
    Joined { name: Sealed<String> },
}

#[derive(Debug, Clone, PartialEq, Child)]
pub(super) struct Resident {
    pub(super) name: Sealed<String>,
}

/// Stored as a row with children, with a history.
#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "household", event = HouseholdEvent, tenant, history, chained)]
pub(super) struct Household {
    #[aggregate(id)]
    pub(super) id: i64,
    #[aggregate(root)]
    pub(super) root: Root<HouseholdEvent>,
    #[mapper(children(table = "household_resident"))]
    pub(super) residents: Vec<Resident>,
}

impl Household {
    pub(super) fn new(id: i64) -> Self {
        Self {
            id,
            root: Root::new(),
            residents: Vec::new(),
        }
    }

    pub(super) fn join(&mut self, name: Sealed<String>) {
        self.residents.push(Resident { name: name.clone() });
        self.root.raise(HouseholdEvent::Joined { name });
    }
}

/// Has a letter written to whoever is registered, which never works.
#[derive(Clone)]
pub(super) struct Welcome;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Greeted {
    names: Vec<Sealed<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Write {
    to: Sealed<String>,
}

impl ProcessManager for Welcome {
    type Event = PersonEvent;
    type State = Greeted;
    type Command = Write;

    const NAME: &'static str = "welcome";

    fn instance(&self, event: &Envelope<PersonEvent>) -> Option<Instance> {
        Some(Instance::starting(event.aggregate_id_str()))
    }

    fn on_event(
        &self,
        state: &mut Greeted,
        event: &Envelope<PersonEvent>,
        next: &mut Next<'_, Write>,
    ) -> Result<()> {
        let name = name_of(event);
        state.names.push(name.clone());
        next.command(Write { to: name.clone() });
        Ok(())
    }

    async fn execute<U: UnitOfWork>(&self, command: Write, _: &mut U) -> Result<()> {
        Err(Error::other(format!("no post to {command:?}")))
    }
}

/// Shows what it was given in its error.
pub(super) struct Broken;

impl EventBus for Broken {
    async fn publish(&self, events: &[Envelope<RawPayload>]) -> Result<()> {
        let payloads: Vec<_> = events.iter().map(Envelope::payload).collect();
        Err(Error::other(format!("no broker for {payloads:?}")))
    }
}

pub(super) fn name_of(event: &Envelope<PersonEvent>) -> &Sealed<String> {
    match event.payload() {
        PersonEvent::Registered { name, .. } | PersonEvent::Renamed { name } => name,
    }
}

/// What a projection that has keys was told of each name: the person, and what it read.
pub(super) type Told = (String, Result<String, Forgotten>);

#[derive(Clone)]
pub(super) struct Greeter {
    keys: SubjectKeys,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Greeter {
    pub(super) fn new(keys: SubjectKeys) -> Self {
        Self {
            keys,
            told: Arc::default(),
        }
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

impl<K: Kind> Projection<SqlTransaction<K>> for Greeter {
    type Event = PersonEvent;

    fn name(&self) -> &str {
        "greeter"
    }

    async fn apply(&self, page: &[Envelope<PersonEvent>], _: &mut SqlTransaction<K>) -> Result<()> {
        let subjects = page.iter().map(|event| name_of(event).subject());
        let ring = self.keys.ring(subjects).await?;
        for event in page {
            let told = (
                event.aggregate_id_str().to_owned(),
                ring.open(name_of(event))?,
            );
            self.told.lock().unwrap().push(told);
        }
        Ok(())
    }
}
