//! Loads that go out together.
//!
//! Each sees what was committed before it was asked for, as alone: the statement is sent after all whose
//! loads it carries have asked. A flush that fails says nothing about any of them: they go back to
//! their callers, who load alone.

use std::any::{Any, TypeId};

use cqrs_core::mapping::{RowCursor, Table};
use cqrs_core::{Entity, Result};

use super::flush::Outlet;
use super::lanes::{First, Waiting};
use super::{Outgoing, Work};
use crate::backend::{Backend, Parameter};
use crate::connections::Connection;
use crate::metrics;
use crate::reads::is_unavailable;
use crate::select::Select;

/// An entity, whose type its caller knows.
type Untyped = Box<dyn Any + Send>;

/// A load of one entity by its key.
pub(crate) struct Load<B: Backend> {
    entity: TypeId,
    table: &'static Table,
    /// Those of the select that loads it alone.
    parameters: Vec<Parameter>,
    read: fn(&B::Row) -> Result<Untyped>,
}

impl<B: Backend> Load<B> {
    /// The load that [`by_key`](crate::select::by_key) selects.
    pub(super) fn of<T: Entity>(select: &Select) -> Self {
        Self {
            entity: TypeId::of::<T>(),
            table: T::table(),
            parameters: select.parameters.clone(),
            read: |row| {
                let entity = T::read_row(&mut RowCursor::new(T::table(), row))?;
                Ok(Box::new(entity))
            },
        }
    }
}

/// What is loaded, and how many values say which row is meant: one more within a tenant.
type LaneId = (TypeId, usize);

/// What became of a load.
pub(crate) enum Loaded<T> {
    /// It was read, or is not there.
    Read(Result<Option<T>>),
    /// It is to be loaded alone. While the value lives, others gather behind it.
    Alone(Option<First<LaneId>>),
}

impl Loaded<Untyped> {
    pub(super) fn typed<T: Entity>(self) -> Loaded<T> {
        match self {
            Self::Alone(first) => Loaded::Alone(first),
            Self::Read(read) => Loaded::Read(read.map(|entity| entity.map(typed))),
        }
    }
}

fn typed<T: Entity>(entity: Untyped) -> T {
    let entity = entity.downcast();
    *entity.expect("a lane is of one type")
}

impl<B: Backend> Work for Load<B> {
    type Lane = LaneId;
    type Answer = Loaded<Untyped>;

    /// A load takes a server that is not busy less time than a flush takes to begin.
    const ALONE: usize = 4;

    fn lane(&self) -> Self::Lane {
        (self.entity, self.parameters.len())
    }

    fn size(&self) -> usize {
        let sizes = self.parameters.iter().map(Parameter::size);
        sizes.sum()
    }

    fn alone(self, first: Option<First<LaneId>>) -> Loaded<Untyped> {
        Loaded::Alone(first)
    }
}

impl<B: Backend> Outgoing<B> for Load<B> {
    /// Each is answered as soon as its row is there.
    async fn send(outlet: &Outlet<B>, mut connection: Connection<B>, waiting: Vec<Waiting<Self>>) {
        let mut waiting: Vec<_> = waiting
            .into_iter()
            .filter(|one| !one.caller.is_closed())
            .map(Some)
            .collect();
        let Some(Some(first)) = waiting.first() else {
            return;
        };
        let table = first.work.table;
        let wanted: Vec<_> = waiting
            .iter()
            .flatten()
            .map(|one| one.work.parameters.as_slice())
            .collect();
        let (sent, wanted) = (wanted.len(), Parameter::columns(&wanted));
        let read = B::read_together(
            connection.begin_work(),
            &outlet.statements,
            table,
            &wanted,
            |place, row| {
                if let Some(one) = waiting.get_mut(place).and_then(Option::take) {
                    one.answer(|load| Loaded::Read((load.read)(row).map(Some)));
                }
            },
        );
        match outlet.answered(read).await.flatten() {
            Ok(()) => {
                connection.end_work();
                metrics::loads_flushed(sent, 0);
                for one in waiting.into_iter().flatten() {
                    one.answer(|_| Loaded::Read(Ok(None)));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "loads that were sent together failed");
                if is_unavailable(&error) {
                    outlet.discard(connection);
                } else {
                    connection.end_work();
                }
                let left: Vec<_> = waiting.into_iter().flatten().collect();
                metrics::loads_flushed(sent - left.len(), left.len());
                for one in left {
                    one.answer(|load| load.alone(None));
                }
            }
        }
    }
}
