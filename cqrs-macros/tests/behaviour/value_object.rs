use cqrs_core::mapping::{ColumnError, ColumnType, Value, ValueRow};
use cqrs_core::{ColumnValue, ValueObject};

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct Priority(i32);

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct Urgency(Priority);

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
enum RouteStatus {
    Ready,
    InTransit,
    #[value_object(name = "over")]
    Done,
}

fn read<T: ColumnValue>(value: Value) -> Result<Option<T>, ColumnError> {
    T::read_column(&ValueRow::new(vec![value]), 0)
}

#[test]
fn a_newtype_is_stored_as_what_it_wraps() {
    assert_eq!(Urgency::TYPE, ColumnType::Int32);
    const { assert!(!Urgency::NULLABLE) };
    assert_eq!(Urgency(Priority(3)).to_value(), Ok(Value::Int(3)));
    assert_eq!(read(Value::Int(3)), Ok(Some(Urgency(Priority(3)))));
    assert_eq!(read::<Urgency>(Value::Null), Ok(None));
    assert_eq!(read::<Option<Urgency>>(Value::Null), Ok(Some(None)));
    assert!(read::<Urgency>(Value::Text("3".into())).is_err());
}

#[test]
fn an_enum_is_stored_by_the_names_of_its_variants() {
    assert_eq!(RouteStatus::TYPE, ColumnType::Text);
    for (status, name) in [
        (RouteStatus::Ready, "ready"),
        (RouteStatus::InTransit, "in_transit"),
        (RouteStatus::Done, "over"),
    ] {
        assert_eq!(status.to_value(), Ok(Value::Text(name.into())));
        assert_eq!(read(Value::Text(name.into())), Ok(Some(status)));
    }
    assert_eq!(read::<RouteStatus>(Value::Null), Ok(None));
}

#[test]
fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
    let error = read::<RouteStatus>(Value::Text("Done".into())).expect_err("not a name");
    assert_eq!(
        error.to_string(),
        "\"Done\" is not a RouteStatus; known are ready, in_transit, over"
    );
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Inner {
    #[mapper(json)]
    list: Vec<u8>,
    #[mapper(text)]
    letter: Option<char>,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Outer {
    urgency: Option<Urgency>,
    #[mapper(flatten)]
    inner: Inner,
    status: RouteStatus,
}

#[test]
fn a_group_counts_the_columns_of_the_groups_in_it() {
    assert_eq!(Inner::COLUMNS, 2);
    assert_eq!(Outer::COLUMNS, 4);
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Leg {
    km: Option<i32>,
    #[mapper(flatten)]
    from: Option<Town>,
    #[mapper(flatten, prefix = "")]
    to: Town,
}

#[derive(Debug, Clone, PartialEq, ValueObject)]
struct Town {
    name: Option<String>,
    #[mapper(flatten)]
    spot: Option<Spot>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueObject)]
struct Spot {
    x: i32,
    y: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, cqrs_core::ReadModel)]
#[read_model(table = "trip")]
struct Trip {
    #[read_model(key)]
    id: i64,
    #[mapper(flatten)]
    leg: Option<Leg>,
    #[mapper(flatten, prefix = "b_")]
    back: Leg,
}

fn town(x: Option<i32>) -> Town {
    Town {
        name: None,
        spot: x.map(|x| Spot { x, y: None }),
    }
}

#[test]
fn value_objects_nest_to_any_depth() {
    let leg = |from, to| Leg { km: None, from, to };
    let full = || leg(Some(town(Some(1))), town(Some(2)));
    for trip in [
        Trip {
            id: 1,
            leg: None,
            back: full(),
        },
        Trip {
            id: 2,
            leg: Some(full()),
            back: leg(None, town(None)),
        },
        Trip {
            id: 3,
            leg: Some(leg(None, town(Some(0)))),
            back: full(),
        },
    ] {
        let row = crate::row_of(&trip).expect("it can be stored");
        assert_eq!(crate::from_row::<Trip>(&row), Ok(trip));
    }
    let columns = crate::columns_of::<Trip>();
    assert!(
        columns.contains(&"leg_from_spot_x: int32?".to_owned()),
        "{columns:?}"
    );
    assert!(
        columns.contains(&"b_spot_y: int32?".to_owned()),
        "{columns:?}"
    );
    let f = Trip::fields();
    assert_eq!(f.leg.from.spot.y.column(), "leg_from_spot_y");
    assert_eq!(f.back.to.spot.x.column(), "b_spot_x");
}

#[test]
fn what_is_nothing_but_null_is_refused_at_any_depth() {
    let nothing = Leg {
        km: None,
        from: None,
        to: town(None),
    };
    let within = Leg {
        km: Some(1),
        from: Some(town(None)),
        to: town(None),
    };
    for (leg, back) in [
        (Some(nothing.clone()), nothing.clone()),
        (Some(within.clone()), nothing),
        (None, within),
    ] {
        let trip = Trip { id: 1, leg, back };
        assert!(crate::row_of(&trip).is_err(), "{trip:?}");
    }
}
