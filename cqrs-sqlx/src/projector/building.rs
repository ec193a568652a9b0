//! Building read models anew, beside the rows that are read: asking for it, and giving it up.
//!
//! The new rows are in a table of their own, the shadow of the one that is read, and are kept by a
//! subscription of their own with its own checkpoints. So everything that holds for a subscription
//! holds for a rebuild: any process may go on with it, each event counts once, segments are built
//! beside each other, and an event that fails halts the building and not what is read. Only its
//! end is special: see [`switch`](super::switch).

use cqrs_core::mapping::{ColumnType, RowSource, Table, Value};
use cqrs_core::{Error, Position, Rebuilds, Result, StartAt, StoreErrorKind, Subscription};

use super::checkpoint::{self, read, some};
use super::operations::Operations;
use super::queries;
use super::register::{self, NewSegments, insert_segments, start};
use super::transaction::SqlTransaction;
use crate::backend::{Backend, Parameter};
use crate::connections::Connection;
use crate::statements::quoted;

/// What `cqrs_rebuild` holds.
pub(crate) const COLUMNS: &str =
    "subscription, building, read_table, switches, actor, correlation_id, started_at";

/// Postgres cuts longer names, also that of the key of the new table.
const LONGEST_NAME: usize = 63;

/// When rows that were built anew take the place of those that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SwitchOver {
    /// As soon as they have caught up.
    #[default]
    WhenReady,
    /// When they have caught up and somebody says so: [`Operations::switch_rebuild`]. Until then
    /// both are kept.
    WhenTold,
}

/// A row of `cqrs_rebuild`.
#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) switches: bool,
    read_table: String,
}

/// What the name of a subscription that builds ends with.
const SUFFIX: &str = " (building)";

/// The name of the subscription that builds the rows of another anew.
pub(super) fn name_for(subscription: &str) -> String {
    format!("{subscription}{SUFFIX}")
}

/// Refuses the name of one that builds where handlers are given for it: those of the subscription
/// whose rows it builds would write into the table that is read.
pub(super) fn refuse_name(name: &str) -> Result<()> {
    match name.strip_suffix(SUFFIX) {
        None => Ok(()),
        Some(served) => Err(usage(format!(
            "{name:?} is the name of a rebuild of {served:?}: run and change that, or cancel the \
             rebuild"
        ))),
    }
}

/// The rebuild of a subscription, in a transaction.
pub(super) async fn find<B: Backend>(
    connection: &mut B::Connection,
    subscription: &str,
) -> Result<Option<Rebuild>> {
    let sql = "SELECT switches, read_table FROM cqrs_rebuild WHERE subscription = $1";
    let parameters = [Parameter::text(subscription)];
    let mut found = None;
    B::fetch(connection, &sql.into(), &parameters, None, |row| {
        found = Some(read(row, |row| {
            Ok(Rebuild {
                switches: some(row.read_bool(0)?)?,
                read_table: some(row.read_text(1)?)?.to_owned(),
            })
        })?);
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Refuses what must not happen while the rows of a subscription are built anew.
pub(super) async fn refuse_while_rebuilt<B: Backend>(
    connection: &mut B::Connection,
    subscription: &str,
) -> Result<()> {
    match find::<B>(connection, subscription).await? {
        None => Ok(()),
        Some(_) => Err(usage(format!(
            "subscription {subscription:?} is being rebuilt: wait for that, or cancel it"
        ))),
    }
}

/// Runs statements of which each is about one subscription, in a transaction.
pub(super) async fn run_each<B: Backend>(
    connection: &mut B::Connection,
    statements: &[&'static str],
    parameters: &[Parameter],
) -> Result<()> {
    for &sql in statements {
        B::execute(connection, &sql.into(), parameters).await?;
    }
    Ok(())
}

impl<B: Backend> Operations<B> {
    /// Has the rows of a subscription built anew, beside those that are read: in a table of their
    /// own, which takes the place of the other in one transaction. Returns at once, with the name
    /// of the subscription that builds them, `"<name> (building)"`.
    ///
    /// Projectors that run the subscription, with the same
    /// [version](cqrs_core::RowProjection::VERSION) of its projection, build the rows, on any number
    /// of replicas and in as many segments. Meanwhile those that are read are kept by projectors of
    /// their version. The other name is that of a subscription like any: for
    /// [`progress`](crate::SqlStore::progress), [`resume`](Self::resume),
    /// [`set_segments`](Self::set_segments) and dead letters.
    ///
    /// The table must hold nothing but the rows of this projection.
    ///
    /// # Errors
    ///
    /// As for [all](Self#errors), and `Usage` where the subscription has other handlers than one
    /// [`RowProjection`](cqrs_core::RowProjection), begins at [`StartAt::Now`], is being rebuilt
    /// already, where events that it reads have [left](crate::SqlStore::remove_events) the log,
    /// unless they [may](Self::despite_gaps), or where something in the database hangs on its table
    /// that could not follow: a foreign key of another table; a view or a trigger on Postgres.
    pub async fn rebuild(
        &self,
        subscription: &Subscription<SqlTransaction<B>>,
        switch: SwitchOver,
    ) -> Result<String> {
        subscription.check()?;
        refuse_name(subscription.name())?;
        let rebuilds = what_to_rebuild(subscription)?;
        let start = start(&self.shared, subscription.name(), subscription.start()).await?;
        let mut connection = queries::begin(&self.shared).await?;
        let begun = async {
            let connection = connection.get();
            let (name, building) = (subscription.name(), name_for(subscription.name()));
            let served = checkpoint::lock_all::<B>(connection, name).await?;
            if served.is_empty() {
                return Err(Error::unknown_subscription(name));
            }
            refuse_while_rebuilt::<B>(connection, name).await?;
            self.refuse_gaps(connection, subscription, start).await?;
            for sql in B::shadow_sql(connection, rebuilds.table).await? {
                B::execute_script(connection, sql).await?;
            }
            let segments = match subscription.is_splittable() {
                true => served.len().max(subscription.initial_segments() as usize) as i64,
                false => 1,
            };
            self.insert(connection, subscription, switch, (&building, segments))
                .await?;
            let count = usize::try_from(segments).unwrap_or(1);
            let segments = NewSegments {
                positions: vec![start; count],
                marks: vec![Position::START; count],
                version: rebuilds.version,
            };
            insert_segments::<B>(connection, &building, &segments).await?;
            let detail = format!("version {}", rebuilds.version);
            self.record(connection, name, ("rebuild", detail)).await?;
            Ok(building)
        }
        .await;
        self.end(connection, begun).await
    }

    async fn insert(
        &self,
        connection: &mut B::Connection,
        subscription: &Subscription<SqlTransaction<B>>,
        switch: SwitchOver,
        (building, segments): (&str, i64),
    ) -> Result<()> {
        let sql = "INSERT INTO cqrs_subscription (name, segments, splits) VALUES ($1, $2, $3)";
        let bool = |value| Parameter::new(ColumnType::Bool, Value::Bool(value));
        let parameters = [
            Parameter::text(building),
            Parameter::int(segments),
            bool(subscription.is_splittable()),
        ];
        B::execute(connection, &sql.into(), &parameters).await?;
        let table = subscription.rebuilds().map(|rebuilds| rebuilds.table);
        let metadata = self.context.metadata();
        let actor = metadata.actor.clone().map_or(Value::Null, Value::Text);
        let sql = "INSERT INTO cqrs_rebuild (subscription, building, read_table, switches, actor, \
                   correlation_id) VALUES ($1, $2, $3, $4, $5, $6)";
        let parameters = [
            Parameter::text(subscription.name()),
            Parameter::text(building),
            Parameter::text(table.map_or("", Table::name)),
            bool(switch == SwitchOver::WhenReady),
            Parameter::new(ColumnType::Text, actor),
            Parameter::new(ColumnType::Uuid, Value::Uuid(metadata.correlation_id)),
        ];
        B::execute(connection, &sql.into(), &parameters)
            .await
            .map(drop)
    }

    /// Lets the rows that are built anew take the place of those that are read, as soon as they
    /// have caught up; `false` where none are built.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn switch_rebuild(&self, subscription: &str) -> Result<bool> {
        let mut connection = queries::begin(&self.shared).await?;
        let told = async {
            let connection = connection.get();
            let sql = "UPDATE cqrs_rebuild SET switches = TRUE WHERE subscription = $1";
            let parameters = [Parameter::text(subscription)];
            let told = B::execute(connection, &sql.into(), &parameters).await? > 0;
            if told {
                let record = ("switch_rebuild", String::new());
                self.record(connection, subscription, record).await?;
            }
            Ok(told)
        }
        .await;
        self.end(connection, told).await
    }

    /// Gives up rows that are built anew, with their table, checkpoints and dead letters; `false`
    /// where none are built. What is read stays as it is.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) where the store fails.
    pub async fn cancel_rebuild(&self, subscription: &str) -> Result<bool> {
        let mut connection = queries::begin(&self.shared).await?;
        let cancelled = async {
            let connection = connection.get();
            let building = name_for(subscription);
            // In the order in which the switch locks them.
            checkpoint::lock_all::<B>(connection, subscription).await?;
            checkpoint::lock_all::<B>(connection, &building).await?;
            let Some(rebuild) = find::<B>(connection, subscription).await? else {
                return Ok(false);
            };
            let shadow = format!("{}__new", rebuild.read_table);
            let drop = format!("DROP TABLE IF EXISTS {}", quoted(&shadow));
            B::execute_script(connection, drop).await?;
            let sql = "DELETE FROM cqrs_rebuild WHERE subscription = $1";
            B::execute(connection, &sql.into(), &[Parameter::text(subscription)]).await?;
            register::remove::<B>(connection, &building).await?;
            let record = ("cancel_rebuild", String::new());
            self.record(connection, subscription, record).await?;
            Ok(true)
        }
        .await;
        self.end(connection, cancelled).await
    }

    /// Ends the transaction of an operation, and tells the projectors.
    async fn end<T>(&self, connection: Connection<B>, result: Result<T>) -> Result<T> {
        let done = queries::end(connection, result).await?;
        self.shared.operated.tell().await;
        Ok(done)
    }
}

/// What a subscription keeps that can be built anew.
fn what_to_rebuild<T>(subscription: &Subscription<T>) -> Result<Rebuilds> {
    let name = subscription.name();
    let Some(rebuilds) = subscription.rebuilds() else {
        return Err(usage(format!(
            "subscription {name:?} cannot be rebuilt beside what it keeps, since it has other \
             handlers than one `RowProjection`: run it under another name and with other tables, \
             and remove the old ones when it has caught up"
        )));
    };
    if subscription.start() == StartAt::Now {
        return Err(usage(format!(
            "subscription {name:?} began at a time that is not known any more: rebuild it with \
             `start_at(StartAt::Time(..))`, or from the beginning"
        )));
    }
    let table = rebuilds.table;
    if table.is_aggregate() || table.is_child() {
        return Err(usage(format!(
            "table {} of subscription {name:?} holds aggregates, which are no projection of events",
            table.name()
        )));
    }
    if let Some(column) = table.columns().iter().find(|column| !column.is_written()) {
        return Err(usage(format!(
            "table {} of subscription {name:?} cannot be built anew beside it, since others fill its \
             column {}: run it under another name and with another table",
            table.name(),
            column.name()
        )));
    }
    let key = format!("{}_pkey", table.shadow().name());
    if key.len() > LONGEST_NAME || name_for(name).len() > 255 {
        return Err(usage(format!(
            "subscription {name:?} cannot be rebuilt: its name or that of table {} is too long to \
             have another beside it",
            table.name()
        )));
    }
    Ok(rebuilds)
}

fn usage(message: String) -> Error {
    Error::store(StoreErrorKind::Usage, message)
}
