//! The rivals: for each the same orders, as its documentation writes them.

mod cqrs_es;
mod disintegrate;
mod es_entity;
mod esrs;
mod obix;

pub(crate) use self::cqrs_es::{CqrsEs, CqrsEsUpsert};
pub(crate) use self::disintegrate::Disintegrate;
pub(crate) use self::es_entity::Repository as EsEntity;
pub(crate) use self::esrs::Esrs;
pub(crate) use self::obix::Obix;
