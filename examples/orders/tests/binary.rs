//! Runs the program and looks at what it prints.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its setting fails, in helpers too"
)]

use std::fs;
use std::process::{Command, Output};

use cqrs_integration::database::TestDatabase;
use tempfile::TempDir;

const HEADER: &str = "order_id,customer_id,order_status,order_purchase_timestamp,\
     order_approved_at,order_delivered_carrier_date,order_delivered_customer_date,\
     order_estimated_delivery_date";

/// One on time, one a day late, one on its way for too long, one cancelled in time, and one whose
/// times are in another order than its steps.
const ORDERS: &str = "\
    a,ann,delivered,1/2/2018 8:00,1/2/2018 9:00,1/3/2018 8:00,1/10/2018 23:59,1/10/2018 0:00\n\
    b,ann,delivered,1/2/2018 8:00,1/2/2018 9:00,1/3/2018 8:00,1/11/2018 0:00,1/10/2018 0:00\n\
    c,ben,shipped,1/2/2018 8:00,1/2/2018 9:00,1/3/2018 8:00,,1/10/2018 0:00\n\
    d,ben,canceled,1/2/2018 8:00,,,,1/10/2018 0:00\n\
    e,cleo,delivered,1/2/2018 8:00,1/4/2018 9:00,1/3/2018 8:00,1/5/2018 8:00,1/10/2018 0:00\n";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orders"))
        .args(arguments)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn write(folder: &TempDir, orders: &str) -> String {
    let file = folder.path().join("orders.csv");
    fs::write(&file, format!("{HEADER}\n{orders}")).unwrap();
    file.to_str().unwrap().to_owned()
}

const REPORT: [&str; 22] = [
    "status        orders flagged",
    "shipped            1       1",
    "delivered          3       1",
    "canceled           1       0",
    "",
    "month        deliveries    late mean days",
    "2018-01               3       1       6.3",
    "",
    "customer                           orders delivered   late",
    "ann                                     2         2      1",
    "ben                                     2         0      1",
    "",
    "order b",
    "  2018-01-02 08:00  order.placed           import",
    "  2018-01-02 09:00  order.approved         import",
    "  2018-01-03 08:00  order.shipped          import",
    "  2018-01-11 00:00  order.flagged_late     late_orders",
    "  2018-01-11 00:00  order.delivered        import",
    "  promised for 2018-01-10, on which it was shipped",
    "",
    "checked   3 statuses, 2 late orders, 3 deliveries: as in the file",
    "imported  5 orders by 17 commands in",
];

fn assert_report(output: &Output) {
    let mut lines = lines(output);
    let last = lines.pop().unwrap();
    assert!(last.starts_with(REPORT[21]), "{last}");
    assert_eq!(lines, REPORT[..21]);
}

#[test]
fn it_shows_what_the_file_says() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, ORDERS);
    assert_report(&run(&[&file]));
    let database = folder.path().join("orders.db");
    let arguments = [&file, "--database", database.to_str().unwrap()];
    assert_report(&run(&arguments));
    let again = run(&arguments);
    assert!(!again.status.success());
    let error = String::from_utf8(again.stderr).unwrap();
    assert_eq!(error, "error: the database holds orders already\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_same_on_postgres() {
    let database = TestDatabase::create().await;
    let folder = TempDir::new().unwrap();
    let file = write(&folder, ORDERS);
    assert_report(&run(&[&file, "--database-url", database.url()]));
}

#[test]
fn it_runs_without_a_file() {
    let lines = lines(&run(&[]));
    // 20 did not arrive, and 6 of those that take longer did.
    let checked = "checked   6 statuses, 26 late orders, 90 deliveries: as in the file";
    assert!(lines.iter().any(|line| line == checked), "{lines:#?}");
}

/// What a line says of its status has happened, also where it has no time for it.
#[test]
fn steps_without_a_time_are_taken() {
    let folder = TempDir::new().unwrap();
    let file = write(
        &folder,
        "f,ann,delivered,1/2/2018 8:00,,,1/5/2018 8:00,1/10/2018 0:00\n\
         g,ann,shipped,1/2/2018 8:00,,,,1/10/2018 0:00\n\
         h,ben,approved,1/2/2018 8:00,,,,1/10/2018 0:00\n\
         i,ben,invoiced,1/2/2018 8:00,,,,1/10/2018 0:00\n",
    );
    let lines = lines(&run(&[&file]));
    let checked = "checked   4 statuses, 3 late orders, 1 deliveries: as in the file";
    assert!(lines.iter().any(|line| line == checked), "{lines:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_line() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "a,ann,delivered,yesterday,,,,1/10/2018 0:00\n");
    let output = run(&[&file]);
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    for part in ["orders.csv", "line: 2", "\"yesterday\" is no time like"] {
        assert!(error.contains(part), "{error}");
    }
}
