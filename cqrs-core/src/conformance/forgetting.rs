//! Sealed fields, and what is left of them when their subject is forgotten.

use std::sync::{Arc, Mutex, PoisonError};

use super::Harness;
use super::fixtures::{Member, Person, PersonEntry, PersonEvent, PersonList};
use super::support::{Bench, begin, err, north, ok, south, system};
use crate::context::RequestContext;
use crate::envelope::Envelope;
use crate::error::{Error, Result};
use crate::projection::{Projection, Rows};
use crate::read_model::ReadModels;
use crate::repository::EventHistory;
use crate::sealed::{Forgotten, Sealed, SealedError, Sealing, Subject, SubjectKeys};
use crate::sourced::{AsOf, SourcedState};
use crate::store::Store;
use crate::subscription::{StartAt, Subscription};
use crate::unit_of_work::UnitOfWork;

const ADA: &str = "Ada \"Byron\" Lovelace";

fn subject(id: &str) -> Subject {
    ok(Subject::new(id))
}

async fn sealed(keys: &SubjectKeys, id: &str, name: &str) -> Sealed<String> {
    ok(ok(keys.key(&subject(id)).await).seal(&name.to_owned()))
}

/// What a value reads as for who asks for its key now.
async fn opened(keys: &SubjectKeys, value: &Sealed<String>) -> Result<String, Forgotten> {
    ok(ok(keys.ring([value.subject()]).await).open(value))
}

/// Saves a person that was registered and renamed.
async fn registered<H: Harness>(bench: &Bench<'_, H>, context: &RequestContext, id: &str) {
    let keys = bench.store.subject_keys(context);
    let key = ok(keys.key(&subject(id)).await);
    let name = ok(key.seal(&"Ada Byron".to_owned()));
    let person = Person::register(id, name, ok(key.seal(&1815)));
    bench.save(context, person).await;
    let mut person = bench.load::<Person>(context, id.to_owned()).await;
    person.rename(ok(key.seal(&ADA.to_owned())));
    bench.save(context, person).await;
}

/// What is sealed opens with the key of its subject, in whatever it was copied to, until the subject
/// is forgotten; that says so, and once.
pub async fn forgetting_closes_what_was_sealed<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let keys = bench.store.subject_keys(&north());
    let (ada, eve) = (
        sealed(&keys, "1", ADA).await,
        sealed(&keys, "2", "Eve").await,
    );
    let ring = ok(keys.ring([ada.subject(), eve.subject()]).await);
    assert_eq!(ok(ring.open(&ada)), Ok(ADA.to_owned()));

    assert!(ok(keys.forget(&subject("1")).await));
    assert!(!ok(keys.forget(&subject("1")).await));
    let forgotten = Forgotten::of(subject("1"));
    assert_eq!(opened(&keys, &ada).await, Err(forgotten.clone()));
    let ring = ok(keys.ring([ada.subject(), eve.subject()]).await);
    assert_eq!(ok(ring.open(&ada)), Err(forgotten));
    assert_eq!(ok(ring.open(&eve)), Ok("Eve".to_owned()));
}

/// A subject that was forgotten gets no other key, whether it had one or not.
pub async fn forgetting_is_for_good<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let keys = bench.store.subject_keys(&north());
    let _ = sealed(&keys, "1", ADA).await;
    for id in ["1", "never seen"] {
        assert!(ok(keys.forget(&subject(id)).await), "{id}");
        let error = err(keys.key(&subject(id)).await);
        let forgotten = Forgotten::of(subject(id));
        assert_eq!(error.domain::<Forgotten>(), Some(&forgotten), "{id}");
        assert!(!error.is_retryable());
    }
}

/// Subjects of two tenants are two subjects, also where they have the same id: neither opens what
/// belongs to the other, nor is forgotten with it. The system has subjects of its own.
pub async fn forgetting_is_within_the_tenant<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let scopes = [north(), south(), system()];
    let keys = scopes.map(|context| bench.store.subject_keys(&context));
    let mut values = Vec::new();
    for keys in &keys {
        values.push(sealed(keys, "1", ADA).await);
    }
    for (own, keys) in keys.iter().enumerate() {
        let ring = ok(keys.ring([&subject("1")]).await);
        for (other, value) in values.iter().enumerate() {
            let opened = ring.open(value);
            match own == other {
                true => assert_eq!(ok(opened), Ok(ADA.to_owned())),
                false => assert_eq!(opened, Err(SealedError::Altered(subject("1")))),
            }
        }
    }
    assert!(ok(keys[0].forget(&subject("1")).await));
    assert!(opened(&keys[0], &values[0]).await.is_err());
    for other in [1, 2] {
        assert!(opened(&keys[other], &values[other]).await.is_ok());
    }
    let unknown = sealed(&keys[1], "south alone", ADA).await;
    let ring = ok(keys[0].ring([unknown.subject()]).await);
    let no_key = SealedError::NoKey(subject("south alone"));
    assert_eq!(ring.open(&unknown), Err(no_key));
}

/// Two that ask for the first key of a subject at once get the same.
pub async fn forgetting_finds_one_key_for_each_subject<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let keys = bench.store.subject_keys(&north());
    let values = Mutex::new(Vec::new());
    let tasks = (0..8).map(|_| async {
        let value = sealed(&keys, "1", ADA).await;
        values
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(value);
    });
    super::support::join_all(tasks).await;
    let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(values.len(), 8);
    for value in &values {
        assert_eq!(opened(&keys, value).await, Ok(ADA.to_owned()));
    }
    assert!(ok(keys.forget(&subject("1")).await));
    for value in &values {
        assert!(opened(&keys, value).await.is_err());
    }
}

/// Aggregates of either form come back as they were, before and after, from snapshots and in their
/// history; what they hold for the subject is forgotten, and nothing else.
pub async fn forgetting_reaches_aggregates<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let keys = bench.store.subject_keys(&north());
    registered(&bench, &north(), "1").await;
    let mut member = Member::blank("1".to_owned());
    for name in ["Ada Byron", "Ada King", ADA] {
        member.name(sealed(&keys, "1", name).await);
        bench.save(&north(), member).await;
        member = bench.load(&north(), "1".to_owned()).await;
    }
    let person = bench.load::<Person>(&north(), "1".to_owned()).await;
    assert_eq!(opened(&keys, &person.name).await, Ok(ADA.to_owned()));
    assert_eq!(opened(&keys, &member.names[2]).await, Ok(ADA.to_owned()));
    assert_eq!(person.former_names.len(), 1);

    assert!(ok(keys.forget(&subject("1")).await));
    let again = bench.load::<Person>(&north(), "1".to_owned()).await;
    assert_eq!((&again.name, &again.born), (&person.name, &person.born));
    let same = bench.load::<Member>(&north(), "1".to_owned()).await;
    assert_eq!(same.names, member.names);
    let mut uow = bench.unit_of_work(&north());
    let mut people = uow.repository::<Person>();
    let first = ok(people.find_as_of("1".to_owned(), AsOf::Version(1)).await);
    let events = ok(people.events("1".to_owned()).await);
    assert_eq!(events.len(), 2);
    let mut names = vec![&again.name, &again.former_names[0]];
    names.extend(&same.names);
    names.extend(first.iter().map(|person| &person.name));
    names.extend(events.iter().filter_map(|event| match event.payload() {
        Some(PersonEvent::Registered { name, .. } | PersonEvent::Renamed { name }) => Some(name),
        None => None,
    }));
    assert_eq!(names.len(), 2 + 3 + 1 + 2);
    for name in names {
        assert!(opened(&keys, name).await.is_err());
    }
    // Business goes on without the name.
    let key = ok(keys.key(&subject("2")).await);
    let mut other = again.clone();
    other.rename(ok(key.seal(&"Eve".to_owned())));
    bench.save(&north(), other).await;
}

/// What each event said to a projection that has keys.
#[derive(Clone)]
struct Greeter {
    keys: SubjectKeys,
    greeted: Arc<Mutex<Vec<Result<String, Forgotten>>>>,
}

impl Greeter {
    fn greeted(&self) -> Vec<Result<String, Forgotten>> {
        std::mem::take(&mut self.greeted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Send + 'static> Projection<T> for Greeter {
    type Event = PersonEvent;

    fn name(&self) -> &str {
        "conformance_greeter"
    }

    async fn apply(&self, page: &[Envelope<PersonEvent>], _: &mut T) -> Result<()> {
        let names: Vec<_> = page
            .iter()
            .map(|event| match event.payload() {
                PersonEvent::Registered { name, .. } | PersonEvent::Renamed { name } => name,
            })
            .collect();
        let subjects = names.iter().map(|name| name.subject());
        let ring = self.keys.ring(subjects).await?;
        for name in names {
            let opened = ring.open(name).map_err(Error::from)?;
            let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
            greeted.push(opened);
        }
        Ok(())
    }

    async fn clear(&self, _: &mut T) -> Result<()> {
        Ok(())
    }
}

/// Projections that have keys are told of each value that its subject is forgotten; those that fold
/// rows fold the same rows as before.
pub async fn forgetting_keeps_replays_working<H: Harness>(h: &H) {
    let bench = begin(h).await;
    let keys = bench.store.subject_keys(&north());
    registered(&bench, &north(), "1").await;
    registered(&bench, &north(), "2").await;
    let greeter = Greeter {
        keys: keys.clone(),
        greeted: Arc::default(),
    };
    let make_list = || Subscription::<H::Transaction>::new(Rows(PersonList));
    let make_greeter = || Subscription::<H::Transaction>::new(greeter.clone());
    let run = async || {
        h.run_subscription(&bench.store, &make_list).await;
        h.run_subscription(&bench.store, &make_greeter).await;
        let rows = bench.store.read_models(&north());
        let row = ok(rows.find::<PersonEntry>("1".to_owned()).await);
        (row.expect("the row is there"), greeter.greeted())
    };
    let (row, greeted) = run().await;
    let told: Vec<_> = ["Ada Byron", ADA, "Ada Byron", ADA]
        .map(|name| Ok(name.to_owned()))
        .into();
    assert_eq!(greeted, told);
    assert_eq!(opened(&keys, &row.name).await, Ok(ADA.to_owned()));

    assert!(ok(keys.forget(&subject("1")).await));
    assert!(opened(&keys, &row.name).await.is_err());
    ok(
        h.reset_subscription(&bench.store, &make_list, StartAt::Beginning)
            .await,
    );
    ok(
        h.reset_subscription(&bench.store, &make_greeter, StartAt::Beginning)
            .await,
    );
    let (again, greeted) = run().await;
    assert_eq!(again, row);
    let forgotten = Err(Forgotten::of(subject("1")));
    let told = [vec![forgotten; 2], told[2..].to_vec()].concat();
    assert_eq!(greeted, told);
}

/// What each event of any tenant said to a projection that has the store: with the keys of the event's
/// tenant, and with those of the other.
#[derive(Clone)]
struct Crier<S> {
    store: S,
    heard: Arc<Mutex<Vec<[Opened; 2]>>>,
}

type Opened = Result<Result<String, Forgotten>, SealedError>;

impl<S, T> Projection<T> for Crier<S>
where
    S: Sealing + Send + Sync + 'static,
    T: Send + 'static,
{
    type Event = PersonEvent;

    fn name(&self) -> &str {
        "conformance_crier"
    }

    async fn apply(&self, page: &[Envelope<PersonEvent>], _: &mut T) -> Result<()> {
        for event in page {
            let (PersonEvent::Registered { name, .. } | PersonEvent::Renamed { name }) =
                event.payload();
            let mut contexts = [north(), south()];
            contexts.sort_by_key(|context| context.scope().tenant() != event.tenant());
            let mut heard = Vec::new();
            for context in contexts {
                let keys = self.store.subject_keys(&context);
                heard.push(keys.ring([name.subject()]).await?.open(name));
            }
            let heard = heard.try_into().expect("there are two");
            let mut all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(heard);
        }
        Ok(())
    }

    async fn clear(&self, _: &mut T) -> Result<()> {
        Ok(())
    }
}

/// A projection sees the events of all tenants. It opens each with the keys of its tenant and of no
/// other, though both have a subject of that name; who is forgotten in one is known in the other.
pub async fn forgetting_keeps_projections_to_the_tenant_of_an_event<H: Harness>(h: &H) {
    let bench = begin(h).await;
    for (context, name) in [(north(), "Ada of the north"), (south(), "Ada of the south")] {
        let keys = bench.store.subject_keys(&context);
        let key = ok(keys.key(&subject("1")).await);
        let id = name.rsplit(' ').next().unwrap_or_default();
        let person = Person::register(id, ok(key.seal(&name.to_owned())), ok(key.seal(&1815)));
        bench.save(&context, person).await;
    }
    let crier = Crier {
        store: bench.store.clone(),
        heard: Arc::default(),
    };
    let make = || Subscription::<H::Transaction>::new(crier.clone());
    let run = async || {
        h.run_subscription(&bench.store, &make).await;
        std::mem::take(&mut *crier.heard.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let altered = || Err(SealedError::Altered(subject("1")));
    let of_south = || Ok(Ok("Ada of the south".to_owned()));
    let heard = run().await;
    let of_north = Ok(Ok("Ada of the north".to_owned()));
    assert_eq!(heard, [[of_north, altered()], [of_south(), altered()]]);

    let keys = bench.store.subject_keys(&north());
    assert!(ok(keys.forget(&subject("1")).await));
    ok(
        h.reset_subscription(&bench.store, &make, StartAt::Beginning)
            .await,
    );
    let forgotten = || Ok(Err(Forgotten::of(subject("1"))));
    let heard = run().await;
    assert_eq!(heard, [[forgotten(), altered()], [of_south(), forgotten()]]);
}

/// The log and what is read of it hold no plain text, neither before nor after.
pub async fn forgetting_leaves_nothing_in_the_log<H: Harness>(h: &H) {
    let bench = begin(h).await;
    registered(&bench, &north(), "1").await;
    assert!(ok(bench
        .store
        .subject_keys(&north())
        .forget(&subject("1"))
        .await));
    let log = bench.log().await;
    assert_eq!(log.len(), 2);
    for event in &log {
        let shown = format!("{event:?}");
        assert!(shown.contains("sealed:1:"), "{shown}");
        for plain in ["Ada", "Byron", "Lovelace", "1815"] {
            assert!(!event.payload().as_str().contains(plain), "{shown}");
        }
    }
}
