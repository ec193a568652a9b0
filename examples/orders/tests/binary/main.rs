//! Runs the program and looks at what it prints.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its setting fails, in helpers too"
)]

mod broken;
mod refused;

use std::fs;
use std::process::{Command, Output};

use cqrs_integration::database::TestDatabase;
use cqrs_integration::random::seed;
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

const REPORT: [&str; 23] = [
    "status        orders flagged",
    "shipped            1       1",
    "delivered          3       1",
    "canceled           1       0",
    "",
    "month        deliveries mean days   late  % late mean days late most late",
    "2018-01               3       6.8      1    33.3            1.0         1",
    "",
    "customer                           orders delivered cancelled flagged days late",
    "ann                                     2         2         0       1         1",
    "ben                                     2         0         1       1         0",
    "",
    "order b",
    "  2018-01-02 08:00  order.placed           import",
    "  2018-01-02 09:00  order.approved         import",
    "  2018-01-03 08:00  order.shipped          import",
    "  2018-01-11 00:00  order.flagged_late     late_orders",
    "  2018-01-11 00:00  order.delivered        import",
    "  promised for 2018-01-10, on which it was shipped",
    "",
    "imported  5 orders by 17 commands in",
    "checked   5 orders, 2 flagged, 3 deliveries with a time, 19 events, 43 orders as of a time: as in the file",
    "          in",
];

fn assert_report(output: &Output) {
    // How long it took is another each time.
    let lines: Vec<String> = lines(output)
        .into_iter()
        .map(|line| match line.rsplit_once(" in ") {
            Some((rest, took)) if took.ends_with('s') => format!("{rest} in"),
            _ => line,
        })
        .collect();
    assert_eq!(lines, REPORT);
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
    let check = lines(&run(&[&arguments[..], &["--check"]].concat()));
    assert_eq!(check[0], REPORT[21]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_the_same_on_postgres() {
    let database = TestDatabase::create().await;
    let folder = TempDir::new().unwrap();
    let file = write(&folder, ORDERS);
    assert_report(&run(&[&file, "--database-url", database.url()]));
}

fn is_checked(lines: &[String], orders: usize) -> bool {
    let begins = format!("checked   {orders} orders, ");
    let checked = |line: &String| line.starts_with(&begins) && line.ends_with("as in the file");
    lines.iter().any(checked)
}

#[test]
fn it_runs_without_a_file() {
    let lines = lines(&run(&[]));
    assert!(is_checked(&lines, 120), "{lines:#?}");
}

/// Made-up orders have times out of order, or none, and each status.
#[tokio::test(flavor = "multi_thread")]
async fn what_random_files_say_is_kept_by_both_databases() {
    let seed = seed().to_string();
    let sample = ["--seed", &seed, "--orders", "400"];
    let on_sqlite = lines(&run(&sample));
    assert!(is_checked(&on_sqlite, 400), "{on_sqlite:#?}");
    let database = TestDatabase::create().await;
    let arguments = [&sample[..], &["--database-url", database.url()]].concat();
    let on_postgres = lines(&run(&arguments));
    let report = |lines: &[String]| {
        let end = lines.iter().position(|line| line.starts_with("imported"));
        lines[..end.unwrap()].to_vec()
    };
    assert_eq!(report(&on_sqlite), report(&on_postgres), "seed {seed}");
}

/// What a line says of its status has happened, also where it has no time for it; but it has no part
/// in the delay of deliveries.
#[test]
fn steps_without_a_time_are_taken() {
    let folder = TempDir::new().unwrap();
    let file = write(
        &folder,
        "f,ann,delivered,1/2/2018 8:00,,,1/5/2018 8:00,1/10/2018 0:00\n\
         g,ann,shipped,1/2/2018 8:00,,,,1/10/2018 0:00\n\
         h,ben,approved,1/2/2018 8:00,,,,1/10/2018 0:00\n\
         i,ben,invoiced,1/2/2018 8:00,,,,1/10/2018 0:00\n\
         j,ben,delivered,1/2/2018 8:00,,1/3/2018 8:00,,1/10/2018 0:00\n\
         k,ben,created,1/2/2018 8:00,,,,1/10/2018 0:00\n",
    );
    let lines = lines(&run(&[&file]));
    assert!(is_checked(&lines, 6), "{lines:#?}");
    for line in [
        "delivered          2       0",
        "2018-01               1       3.0      0     0.0              -         0",
        "ben                                     4         1         0       3         0",
    ] {
        assert!(lines.iter().any(|found| found == line), "{lines:#?}");
    }
}

/// Delay counts from the recorded times, and not from when they were known: this one was approved
/// after it had arrived.
#[test]
fn times_out_of_order_are_kept_as_they_are_recorded() {
    let folder = TempDir::new().unwrap();
    let file = write(
        &folder,
        "l,ann,delivered,1/2/2018 8:00,1/30/2018 8:00,1/3/2018 8:00,1/4/2018 8:00,1/10/2018 0:00\n",
    );
    let lines = lines(&run(&[&file]));
    for line in [
        "delivered          1       1",
        "2018-01               1       2.0      0     0.0              -         0",
        "  2018-01-30 08:00  order.delivered        import",
    ] {
        assert!(lines.iter().any(|found| found == line), "{lines:#?}");
    }
}
