//! The ways to commit.

use cqrs_core::conformance::fixtures::{OldLetter, OldLetterEvent};
use cqrs_core::{Error, Result, Sourced, UnitOfWork};
use cqrs_integration::domain::{self, Parcel, ParcelId};
use cqrs_sqlx::{PgUnitOfWork, Postgres};

#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    /// One statement.
    Create,
    /// A load, then one statement.
    Change,
    /// A load of a stream, then one statement.
    Append,
    /// A transaction that the commit opens itself.
    Several,
    /// A transaction that a read after a write opened.
    ReadAfterWrite,
    /// A transaction with a savepoint that stays and one that is undone.
    Savepoints,
    /// A transaction with SQL of the user, which cannot be sent again with the same ids.
    SqlBesides,
    /// One in which there is nothing else.
    SqlAlone,
}

pub(super) const COMMANDS: [Command; 8] = [
    Command::Create,
    Command::Change,
    Command::Append,
    Command::Several,
    Command::ReadAfterWrite,
    Command::Savepoints,
    Command::SqlBesides,
    Command::SqlAlone,
];

impl Command {
    pub(super) fn is_sql(self) -> bool {
        matches!(self, Self::SqlBesides | Self::SqlAlone)
    }
}

/// What commands change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) parcel: ParcelId,
    pub(super) letter: i64,
}

pub(super) async fn run(command: Command, known: Known, uow: &mut PgUnitOfWork) -> Result<()> {
    match command {
        Command::Create => uow.save(Parcel::register("new")),
        Command::Change => {
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            uow.save(parcel)
        }
        Command::Append => {
            let mut letter = uow.get::<OldLetter>(known.letter).await?;
            letter.raise(OldLetterEvent::Stamped { euros: 1 });
            uow.save(letter)
        }
        Command::Several => {
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            parcel.deliver();
            uow.save(parcel)?;
            uow.save(Parcel::register("new"))
        }
        Command::ReadAfterWrite => {
            let new = Parcel::register("new");
            let id = domain::id(&new);
            uow.save(new)?;
            let seen = uow.get::<Parcel>(id).await?;
            assert_eq!(seen.label(), "new", "a read sees what was staged");
            let mut parcel = uow.get::<Parcel>(known.parcel).await?;
            parcel.weigh(5);
            uow.save(parcel)
        }
        Command::Savepoints => {
            uow.savepoint(async |uow| uow.save(Parcel::register("new")))
                .await?;
            let undone = uow
                .savepoint(async |uow| {
                    uow.save(Parcel::register("undone"))?;
                    let _ = uow.get::<Parcel>(known.parcel).await?;
                    Err::<(), _>(Error::other("undone"))
                })
                .await;
            match undone {
                Err(Error::Other(_)) => Ok(()),
                result => result,
            }
        }
        Command::SqlBesides => {
            uow.save(Parcel::register("new"))?;
            note(uow).await
        }
        Command::SqlAlone => note(uow).await,
    }
}

async fn note(uow: &mut PgUnitOfWork) -> Result<()> {
    let connection = uow.connection().await?;
    let noted = sqlx::query("INSERT INTO noted VALUES (1)").execute(connection);
    noted.await.map_err(Postgres::error).map(drop)
}
