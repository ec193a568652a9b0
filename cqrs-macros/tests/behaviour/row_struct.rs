use cqrs_core::mapping::{RowMapper, Value};
use cqrs_core::{Aggregate, AggregateRoot, DomainEvent, Id, Record, Root, ValueObject};
use serde::{Deserialize, Serialize};

use crate::{columns_of, from_row, row_of, with_column};

#[derive(Debug, Clone, Serialize, Deserialize, DomainEvent)]
#[event(aggregate = "parcel")]
enum ParcelEvent {
    Weighed,
}

#[derive(Debug, Clone, Aggregate)]
#[aggregate(table = "parcel", event = ParcelEvent)]
#[mapper(row = ParcelRow)]
struct Parcel {
    #[aggregate(id)]
    id: Id<Parcel>,
    #[aggregate(root)]
    root: Root<ParcelEvent>,
    grams: u32,
    size: [i32; 2],
}

#[derive(ValueObject)]
struct Size {
    width: i32,
    height: i32,
}

#[derive(Record)]
struct ParcelRow {
    #[record(key)]
    #[mapper(column = "parcel_id")]
    id: Id<Parcel>,
    kilograms: f64,
    #[mapper(flatten)]
    size: Size,
}

impl RowMapper<Parcel> for ParcelRow {
    type Error = String;

    fn from_aggregate(parcel: &Parcel) -> Self {
        let [width, height] = parcel.size;
        Self {
            id: parcel.id,
            kilograms: f64::from(parcel.grams) / 1000.0,
            size: Size { width, height },
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a test"
    )]
    fn into_aggregate(self, root: Root<ParcelEvent>) -> Result<Parcel, String> {
        if self.kilograms < 0.0 {
            return Err(format!("a parcel of {} kg", self.kilograms));
        }
        Ok(Parcel {
            id: self.id,
            root,
            grams: (self.kilograms * 1000.0).round() as u32,
            size: [self.size.width, self.size.height],
        })
    }
}

fn parcel() -> Parcel {
    let mut root = Root::new();
    root.raise(ParcelEvent::Weighed);
    Parcel {
        id: Id::new(),
        root,
        grams: 1500,
        size: [2, 3],
    }
}

#[test]
fn the_row_struct_is_the_shape_of_the_table() {
    assert_eq!(
        columns_of::<Parcel>(),
        [
            "version: int64",
            "parcel_id: uuid",
            "kilograms: float64",
            "size_width: int32",
            "size_height: int32",
        ]
    );
}

#[test]
fn an_aggregate_goes_through_its_row_struct() {
    let parcel = parcel();
    let row = with_column::<Parcel>(row_of(&parcel).expect("a row"), "version", Value::Int(2));
    let read: Parcel = from_row(&row).expect("a parcel");
    assert_eq!(read.root().version(), 2);
    assert_eq!((read.id, read.grams, read.size), (parcel.id, 1500, [2, 3]));
}

#[test]
fn a_row_that_breaks_a_rule_is_an_error_that_names_the_table() {
    let row = row_of(&parcel()).expect("a row");
    let row = with_column::<Parcel>(row, "kilograms", Value::Float(-1.0));
    let error = from_row::<Parcel>(&row).expect_err("a rule is broken");
    assert_eq!(error.table, "parcel");
    assert!(error.to_string().ends_with("a parcel of -1 kg"), "{error}");
}

#[test]
fn conditions_use_the_fields_of_the_row() {
    let fields = Parcel::fields();
    let heavy = fields.kilograms.gt(1.0) & fields.version.eq(0_u64);
    assert_eq!(heavy.is_satisfied_by(&parcel()), Ok(true));
    assert_eq!(fields.id.column(), "parcel_id");
    let copied = fields;
    assert_eq!(format!("{copied:?}"), format!("{fields:?}"));
}
