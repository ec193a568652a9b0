use cqrs_core::SqlRow;

#[derive(SqlRow)]
enum Either {
    A,
}

#[derive(SqlRow)]
struct Generic<T> {
    value: T,
}

#[derive(SqlRow)]
struct Twice {
    label: String,
    #[mapper(column = "label")]
    name: String,
}

#[derive(SqlRow)]
#[sql_row(table = "t")]
struct Unknown {
    label: String,
}

fn main() {}
