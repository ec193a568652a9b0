//! Emitted code works whatever names are in scope, and under another path of the core crate.

#![allow(dead_code, reason = "that it compiles is the test")]

mod framework {
    pub(super) use cqrs_core::*;
}

mod shadowed {
    use cqrs_core::{Aggregate, DomainEvent, EventSet, ReadModel, Record, ValueObject};

    struct Option;
    struct Vec;
    struct String;
    struct Result;
    struct Box;
    struct Some;
    struct None;
    struct Ok;
    struct Err;
    struct Field;
    struct Table;
    struct Root;
    struct R;
    trait Clone {}
    trait Copy {}
    trait Debug {}
    trait Send {}
    trait Sized {}
    trait Entity {}

    #[derive(::core::clone::Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
    #[event(aggregate = "thing")]
    enum Event {
        Made,
    }

    #[derive(EventSet)]
    enum Set {
        Some(Event),
        Ok(Other),
    }

    #[derive(::core::clone::Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
    #[event(aggregate = "other")]
    enum Other {
        Made,
    }

    #[derive(ValueObject)]
    enum Kind {
        Some,
        None,
    }

    #[derive(ValueObject)]
    struct Name(::std::string::String);

    #[derive(ValueObject)]
    struct Pair {
        a: Kind,
        #[mapper(text)]
        b: ::core::option::Option<char>,
    }

    #[derive(Aggregate)]
    #[aggregate(table = "thing", event = Event, tenant, soft_delete, audit)]
    struct Thing {
        #[aggregate(id)]
        id: cqrs_core::Id<Thing>,
        #[aggregate(root)]
        root: cqrs_core::Root<Event>,
        name: Name,
        #[mapper(json)]
        list: ::std::vec::Vec<i32>,
        #[mapper(flatten)]
        pair: ::core::option::Option<Pair>,
        #[mapper(with = number, as = i64)]
        number: ::core::option::Option<i32>,
    }

    mod number {
        pub(super) fn to_column(number: &i32) -> i64 {
            i64::from(*number)
        }

        pub(super) fn from_column(column: i64) -> Result<i32, std::num::TryFromIntError> {
            i32::try_from(column)
        }
    }

    #[derive(::core::clone::Clone, ReadModel)]
    #[read_model(table = "thing_list", tenant)]
    struct Row {
        #[read_model(key)]
        id: cqrs_core::Id<Thing>,
        #[read_model(key)]
        kind: i32,
    }

    #[derive(Record)]
    struct Columns {
        #[record(key)]
        id: i32,
        name: ::core::option::Option<Name>,
    }

    #[cqrs_core::repository]
    trait Things: cqrs_core::Repository<Thing> {
        #[find(name == Name(::std::string::String::new()), order_by(version.asc()))]
        async fn by_name(&mut self, limit: u32) -> cqrs_core::Result<::std::vec::Vec<Thing>>;

        #[find]
        async fn first(&mut self) -> cqrs_core::Result<::core::option::Option<Thing>>;
    }
}

mod another_path {
    use super::framework::{
        Aggregate, DomainEvent, EventSet, Id, ReadModel, Record, Root, ValueObject, repository,
    };

    #[derive(Clone, serde::Serialize, serde::Deserialize, DomainEvent)]
    #[event(aggregate = "thing", crate = "super::framework")]
    enum Event {
        Made,
    }

    #[derive(EventSet)]
    #[event_set(crate = "super::framework")]
    enum Set {
        Thing(Event),
    }

    #[derive(ValueObject)]
    #[value_object(crate = "super::framework")]
    enum Kind {
        A,
    }

    #[derive(Aggregate)]
    #[aggregate(table = "thing", event = Event, crate = "super::framework")]
    struct Thing {
        #[aggregate(id)]
        id: Id<Thing>,
        #[aggregate(root)]
        root: Root<Event>,
        kind: Kind,
    }

    #[derive(Clone, ReadModel)]
    #[read_model(table = "thing_list", crate = "super::framework")]
    struct Row {
        #[read_model(key)]
        id: Id<Thing>,
    }

    #[derive(Record)]
    #[record(crate = "super::framework")]
    struct Columns {
        #[record(key)]
        id: i32,
    }

    #[repository(crate = "super::framework")]
    trait Things: super::framework::Repository<Thing> {
        #[find(kind == Kind::A)]
        async fn count(&mut self) -> super::framework::Result<u64>;
    }
}
