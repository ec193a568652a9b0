//! Projections: read models kept by folding events.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use sha2::{Digest, Sha256};

use crate::context::TenantId;
use crate::envelope::Envelope;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::event::EventSet;
use crate::mapping::{Entity, Table, Value};
use crate::read_model::{Owned, ReadModel, RowKey};
use crate::specification::encode_value;

/// A consumer of the log that writes rows in the transaction of its own checkpoint, so that it
/// applies each event exactly once.
///
/// For a read model with one row per key, [`RowProjection`] is shorter and just as fast. Implement
/// this trait for every `T: ProjectionTransaction` where the rows are [`ReadModel`]s, or for the
/// transaction type of one backend to write SQL of your own.
pub trait Projection<T>: Send + Sync + 'static {
    /// The events it reads.
    type Event: EventSet;

    /// The name of its subscription; its checkpoint is kept under it.
    fn name(&self) -> &str;

    /// The event types that it reads, of those of its set; `None`, unless told, for all. The
    /// others are not even fetched.
    fn event_types(&self) -> Option<&'static [&'static str]> {
        None
    }

    /// Whether pages with events of different aggregates may be applied at the same time, so that
    /// its subscription may have several [segments](crate::Subscription::segments). `false`, unless
    /// told.
    ///
    /// What it writes for the events of one aggregate must then not depend on rows that events of
    /// another change, unless a single statement reads and writes them.
    fn is_splittable(&self) -> bool {
        false
    }

    /// Whether [`apply`](Self::apply) uses its transaction through [`ProjectionTransaction`] alone.
    /// `false`, unless told.
    ///
    /// A store may then apply a page without holding a transaction open, and write its rows together
    /// with the checkpoint when it is done: fewer statements, and the next page is read meanwhile.
    /// What is committed is the same, but a crash of the database may take the last pages, rows and
    /// checkpoint together, and their events are then applied again. Of several workers that do so at the same time one is
    /// committed, and the others have applied in vain; so it is no help to one with
    /// [side effects](Self::has_side_effects), and not done for it.
    fn writes_rows_alone(&self) -> bool {
        false
    }

    /// Whether it acts on the world outside of its transaction: it publishes, calls, sends mail.
    /// `false`, unless told.
    ///
    /// Such a projection is not given events again that its subscription has passed before it was
    /// [reset](crate::Subscription#resets).
    fn has_side_effects(&self) -> bool {
        false
    }

    /// Removes everything that it has written, in the transaction of a
    /// [reset](crate::Subscription#resets).
    ///
    /// # Errors
    ///
    /// Unless told, a [`Usage`](StoreErrorKind::Usage) error: the framework does not know what
    /// SQL of your own has written.
    fn clear(&self, transaction: &mut T) -> impl Future<Output = Result<()>> + Send {
        let _ = transaction;
        let error = not_clearable(self.name());
        async { Err(error) }
    }

    /// Where it keeps the rows of one read model and nothing else, the table of them and its
    /// version, so that they can be built anew beside those that are there. `None`, unless told.
    ///
    /// All that it writes must go through [`ProjectionTransaction`], to this table.
    fn rebuilds(&self) -> Option<Rebuilds> {
        None
    }

    /// The tables that it keeps, each with the version of what it makes of events, so that a store
    /// can take snapshots of them and restore them. Unless told, the one that can be
    /// [built anew](Self::rebuilds); `None` where the tables are not known.
    ///
    /// All that it writes must be in them, and nothing else. One with tables that refer to others
    /// comes after those.
    fn tables(&self) -> Option<Vec<Rebuilds>> {
        self.rebuilds().map(|table| vec![table])
    }

    /// Applies a page of events, in the order of the log.
    ///
    /// # Transaction
    ///
    /// What it writes through `transaction` is committed with the checkpoint, or not at all.
    /// What it does elsewhere may happen more than once.
    ///
    /// # Errors
    ///
    /// An error rolls the page back. Smaller pages find the event that fails; it is tried again,
    /// and then left to the [policy](crate::FailurePolicy) of the subscription.
    fn apply(
        &self,
        page: &[Envelope<Self::Event>],
        transaction: &mut T,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// What a projection keeps, as far as that can be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilds {
    /// The table of its rows.
    pub table: &'static Table,
    /// The version of what it makes of events.
    pub version: u32,
}

/// A read model with one row per key, folded from events.
///
/// It says which row an event belongs to and what the event does to it, without I/O. The framework
/// loads the rows of a whole page with one statement, folds the page in memory, and writes the
/// rows back with one statement.
pub trait RowProjection: Send + Sync + 'static {
    /// The events it reads.
    type Event: EventSet;
    /// Its rows.
    type Row: ReadModel;

    /// The name of its subscription; its checkpoint is kept under it.
    const NAME: &'static str;

    /// The event types that it reads, of those of its set; `None`, unless told, for all. The
    /// others are not even fetched.
    const EVENT_TYPES: Option<&'static [&'static str]> = None;

    /// Whether each row is made of the events of one aggregate, so that its subscription may have
    /// several [segments](crate::Subscription::segments). `false`, unless told; a page that proves
    /// it wrong halts the subscription.
    const ROW_PER_AGGREGATE: bool = false;

    /// The version of what it makes of events; 1, unless told. Rows that are there are kept by
    /// projectors of their own version alone. Raise it with each change of the row type or of the
    /// fold that rows need to be built anew for, and have the store rebuild them.
    const VERSION: u32 = 1;

    /// The key of the row that an event belongs to; `None` skips the event. The row's tenant is
    /// the event's. An event that has one does not fit a row type without tenants, and halts the
    /// subscription, unless that says `#[read_model(shared)]`: then all tenants share its rows.
    ///
    /// # Errors
    ///
    /// As in [`Projection::apply`].
    fn key(&self, event: &Envelope<Self::Event>) -> Result<Option<<Self::Row as ReadModel>::Key>>;

    /// Applies an event to its row. `None` is a row that does not exist: set it to create the
    /// row, clear it to delete the row.
    ///
    /// # Errors
    ///
    /// As in [`Projection::apply`].
    fn apply(&self, row: &mut Option<Self::Row>, event: &Envelope<Self::Event>) -> Result<()>;
}

/// The transaction that a projection writes in, by read model.
pub trait ProjectionTransaction: Send + 'static {
    /// Loads the rows with these addresses, as far as they exist, in any order.
    ///
    /// # Errors
    ///
    /// [`Mapping`](Error::Mapping) where a row does not fit, [`Store`](Error::Store) where the
    /// store fails.
    fn load<R: ReadModel>(
        &mut self,
        addresses: &[RowAddress],
    ) -> impl Future<Output = Result<Vec<Owned<R>>>> + Send;

    /// Inserts these rows, or replaces them where their address exists.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    fn upsert<R: ReadModel>(
        &mut self,
        rows: &[Owned<R>],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Deletes the rows with these addresses, as far as they exist.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    fn delete<R: ReadModel>(
        &mut self,
        addresses: &[RowAddress],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Deletes all rows of the read model, of all tenants.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    fn clear<R: ReadModel>(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Where a row of a read table is found: its tenant and its key.
///
/// Addresses of one table are equal exactly where the databases have one row for them: the two zeros
/// of floats are one.
#[derive(Debug, Clone)]
pub struct RowAddress {
    tenant: Option<TenantId>,
    key: Vec<Value>,
}

impl PartialEq for RowAddress {
    fn eq(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Value, &Value)| match (one, other) {
            (Value::Float(one), Value::Float(other)) => same_bits(*one) == same_bits(*other),
            (one, other) => one == other,
        };
        self.tenant == other.tenant
            && self.key.len() == other.key.len()
            && self.key.iter().zip(&other.key).all(is_same)
    }
}

impl Eq for RowAddress {}

impl Hash for RowAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tenant.hash(state);
        for value in &self.key {
            discriminant(value).hash(state);
            match value {
                Value::Null => {}
                Value::Bool(value) => value.hash(state),
                Value::Int(value) => value.hash(state),
                Value::Float(value) => same_bits(*value).hash(state),
                Value::Text(value) | Value::Json(value) => value.hash(state),
                Value::Bytes(value) => value.hash(state),
                Value::Uuid(value) => value.hash(state),
                Value::Timestamp(value) => value.hash(state),
                Value::Date(value) => value.hash(state),
            }
        }
    }
}

/// The bits of a float, the same for both zeros.
fn same_bits(value: f64) -> u64 {
    (value + 0.0).to_bits()
}

impl RowAddress {
    /// The address of the row of `R` with this key. A tenant is left out where rows are
    /// [shared](Table::is_shared) by all.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where no column can hold the key, [`Error::TenantRequired`] where the
    /// table has tenants and none is given. A [`Usage`](StoreErrorKind::Usage) error where a tenant
    /// is given and the table has none, unless it says `#[read_model(shared)]`: events of all tenants
    /// would be mixed in one row. In a projection it [halts](Error::is_of_page) the subscription,
    /// whatever its policy.
    pub fn of<R: ReadModel>(tenant: Option<&TenantId>, key: &R::Key) -> Result<Self> {
        let table = R::table();
        let key = key.to_values().map_err(|reason| table.key_error(reason))?;
        let tenant = match tenant {
            Some(tenant) if table.is_tenant() => Some(tenant.clone()),
            None if table.is_tenant() => {
                return Err(Error::TenantRequired {
                    aggregate: table.name(),
                    id: format!("{key:?}"),
                });
            }
            Some(tenant) if !table.is_shared() => return Err(mixes_tenants(table, tenant)),
            _ => None,
        };
        Ok(Self { tenant, key })
    }

    /// The address of these values. For authors of backends.
    #[must_use]
    pub fn from_parts(tenant: Option<TenantId>, key: Vec<Value>) -> Self {
        Self { tenant, key }
    }

    /// The tenant; `None` where the table has none.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        self.tenant.as_ref()
    }

    /// The values of the key columns.
    #[must_use]
    pub fn key(&self) -> &[Value] {
        &self.key
    }

    /// A number for this place in a table: equal places have the same number, in every process.
    /// For authors of backends, who lock by it.
    #[must_use]
    pub fn digest(&self, table: &Table) -> [u8; 32] {
        let text = |text: &str| Value::Text(text.to_owned());
        let tenant = self.tenant().map_or(Value::Null, |own| text(own.as_str()));
        let mut bytes = Vec::new();
        for value in [&text(table.name()), &tenant].into_iter().chain(&self.key) {
            match value {
                Value::Float(value) => {
                    encode_value(&Value::Float(f64::from_bits(same_bits(*value))), &mut bytes);
                }
                value => encode_value(value, &mut bytes),
            }
        }
        Sha256::digest(bytes).into()
    }
}

impl<R: ReadModel> Owned<R> {
    /// The address of the row.
    ///
    /// # Errors
    ///
    /// As [`RowAddress::of`].
    pub fn address(&self) -> Result<RowAddress> {
        RowAddress::of::<R>(self.tenant.as_ref(), &self.row.key())
    }

    /// The values of [all columns](crate::mapping::Table::columns) of the row.
    ///
    /// # Errors
    ///
    /// As [`RowAddress::of`].
    pub fn to_values(&self) -> Result<Vec<Value>> {
        self.values_at(&self.address()?)
    }

    /// As [`to_values`](Self::to_values), where the [address](Self::address) of the row is known.
    ///
    /// # Errors
    ///
    /// [`Error::Mapping`] where no column can hold a value.
    pub fn values_at(&self, address: &RowAddress) -> Result<Vec<Value>> {
        let table = <R as Entity>::table();
        let mut values = Vec::with_capacity(table.columns().len());
        let tenant = address.tenant().map(TenantId::as_str);
        values.extend(tenant.map(|tenant| Value::Text(tenant.to_owned())));
        debug_assert_eq!(values.len(), table.framework_columns().len());
        values.extend(self.row.to_row()?);
        Ok(values)
    }
}

/// Runs a [`RowProjection`] as a [`Projection`].
#[derive(Debug, Clone)]
pub struct Rows<P>(pub P);

struct Slot<R> {
    existed: bool,
    row: Option<R>,
}

impl<P, T> Projection<T> for Rows<P>
where
    P: RowProjection,
    T: ProjectionTransaction,
{
    type Event = P::Event;

    fn name(&self) -> &str {
        P::NAME
    }

    fn event_types(&self) -> Option<&'static [&'static str]> {
        P::EVENT_TYPES
    }

    fn is_splittable(&self) -> bool {
        P::ROW_PER_AGGREGATE
    }

    fn writes_rows_alone(&self) -> bool {
        true
    }

    async fn clear(&self, transaction: &mut T) -> Result<()> {
        transaction.clear::<P::Row>().await
    }

    fn rebuilds(&self) -> Option<Rebuilds> {
        Some(Rebuilds {
            table: P::Row::table(),
            version: P::VERSION,
        })
    }

    async fn apply(&self, page: &[Envelope<P::Event>], transaction: &mut T) -> Result<()> {
        let mut addresses: Vec<RowAddress> = Vec::new();
        let mut by_address: HashMap<RowAddress, usize> = HashMap::new();
        let mut targets = Vec::with_capacity(page.len());
        for event in page {
            let Some(key) = self.0.key(event)? else {
                continue;
            };
            let address = RowAddress::of::<P::Row>(event.tenant(), &key)?;
            let slot = *by_address.entry(address).or_insert_with_key(|address| {
                addresses.push(address.clone());
                addresses.len() - 1
            });
            targets.push((event, slot));
        }
        if P::ROW_PER_AGGREGATE {
            check_owners::<P>(addresses.len(), &targets)?;
        }
        if addresses.is_empty() {
            return Ok(());
        }

        let mut slots: Vec<Slot<P::Row>> = addresses
            .iter()
            .map(|_| Slot {
                existed: false,
                row: None,
            })
            .collect();
        for loaded in transaction.load::<P::Row>(&addresses).await? {
            if let Some(slot) = by_address.get(&loaded.address()?) {
                slots[*slot] = Slot {
                    existed: true,
                    row: Some(loaded.row),
                };
            }
        }
        for (event, slot) in targets {
            self.0.apply(&mut slots[slot].row, event)?;
        }

        let mut upserts = Vec::new();
        let mut deletes = Vec::new();
        for (slot, address) in slots.into_iter().zip(addresses) {
            match slot.row {
                Some(row) => {
                    let row = Owned {
                        tenant: address.tenant.clone(),
                        row,
                    };
                    if row.address()? != address {
                        return Err(wrong_key::<P>(&address));
                    }
                    upserts.push(row);
                }
                None if slot.existed => deletes.push(address),
                None => {}
            }
        }
        if !upserts.is_empty() {
            transaction.upsert(&upserts).await?;
        }
        if !deletes.is_empty() {
            transaction.delete::<P::Row>(&deletes).await?;
        }
        Ok(())
    }
}

pub(crate) fn not_clearable(name: &str) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!(
            "projection {name:?} does not say how what it has written is removed: implement \
             `clear`"
        ),
    )
}

/// Checks that no row gets events of two aggregates.
fn check_owners<P: RowProjection>(
    slots: usize,
    targets: &[(&Envelope<P::Event>, usize)],
) -> Result<()> {
    let mut owners: Vec<Option<&Envelope<P::Event>>> = vec![None; slots];
    for (event, slot) in targets {
        let owner = owners[*slot].get_or_insert(event);
        let is_same = owner.aggregate_id_str() == event.aggregate_id_str()
            && owner.aggregate_type() == event.aggregate_type();
        if !is_same {
            let message = format!(
                "projection {:?} says that each row is of one aggregate, and has a row for {} {} and {} {}",
                P::NAME,
                owner.aggregate_type(),
                owner.aggregate_id_str(),
                event.aggregate_type(),
                event.aggregate_id_str(),
            );
            let error = StoreError::new(StoreErrorKind::Usage, message);
            return Err(Error::Store(error.of_page()));
        }
    }
    Ok(())
}

/// The error of an event of a tenant that belongs to a row without one.
fn mixes_tenants(table: &Table, tenant: &TenantId) -> Error {
    let message = format!(
        "an event of tenant {:?} has no row in table {}, which would mix the tenants: write \
         `#[read_model(tenant)]` on {} for rows of each tenant, or `#[read_model(shared)]` where \
         all tenants are meant to share them",
        tenant.as_str(),
        table.name(),
        table.type_name().unwrap_or("its read model"),
    );
    let error = StoreError::new(StoreErrorKind::Usage, message);
    Error::Store(error.of_page())
}

fn wrong_key<P: RowProjection>(address: &RowAddress) -> Error {
    Error::store(
        StoreErrorKind::Usage,
        format!(
            "projection {:?} said that an event belongs to the row with key {:?}, and made one with another key",
            P::NAME,
            address.key
        ),
    )
}
