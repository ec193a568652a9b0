//! Runs the program on folders of small instances and looks at what it prints.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where its setting fails, in helpers too"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cqrs_integration::database::TestDatabase;
use tempfile::TempDir;

/// Three customers in a row and one apart; a vehicle carries 20.
const INSTANCE: &str = "\
    20\n\
    4\n\
    0 0 0 0 0 100 0\n\
    1 3 4 10 0 50 5\n\
    2 6 8 10 0 60 5\n\
    3 0 10 20 0 90 0\n\
    4 0 -5 1 0 90 0\n";

/// The routes of two instances; that of 201 is the second tenant's.
const ROUTES: &str = "\
    0025_C101 3 50.000 7\n\
    2 1 2\n\
    1 3\n\
    1 4\n\
    \n\
    0025_C201 3 50.000 7\n\
    2 1 2\n\
    1 3\n\
    1 4\n";

/// A folder with two valid instances.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    write(folder.path(), "0025_C101.txt", INSTANCE);
    write(folder.path(), "0025_C201.txt", INSTANCE);
    write(folder.path(), "best_known_25.txt", ROUTES);
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_route-plan"))
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs it in a database file of the folder.
fn run_in_file(folder: &Path) -> Output {
    let file = folder.join("plans.db");
    run(folder, &["--database", file.to_str().unwrap()])
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The lines of the list: tenant, instance, route, status, stops and distance.
fn listed(output: &Output) -> Vec<[String; 6]> {
    stdout(output)
        .lines()
        .map(|line| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|columns| {
            columns
                .get(1)
                .is_some_and(|column| column.starts_with("0025_"))
        })
        .map(|columns| columns[..6].to_vec().try_into().unwrap())
        .collect()
}

fn assert_both_instances(output: &Output) {
    let stdout = stdout(output);
    assert!(output.status.success(), "{stdout}{}", stderr(output));

    let rows = listed(output);
    let without_status: Vec<String> = rows
        .iter()
        .map(|[tenant, instance, route, _, stops, distance]| {
            format!("{tenant} {instance} {route} {stops} {distance}")
        })
        .collect();
    assert_eq!(
        without_status,
        [
            "long-haul 0025_C201 1 2 20.000",
            "long-haul 0025_C201 2 1 20.000",
            "long-haul 0025_C201 3 1 10.000",
            "short-haul 0025_C101 1 2 20.000",
            "short-haul 0025_C101 2 1 20.000",
            "short-haul 0025_C101 3 1 10.000",
        ]
    );
    let done = ["planned", "dispatched", "completed", "cancelled"];
    assert!(rows.iter().all(|row| done.contains(&row[3].as_str())));
    for tenant in ["long-haul", "short-haul"] {
        let total = format!("{tenant:<10}  all            3      4       50.000");
        assert!(stdout.contains(&total), "{stdout}");
    }
    let checked = "checked   6 plans, 8 stops, distance 100.000: as in the files";
    assert!(stdout.contains(checked), "{stdout}");
}

#[test]
fn instances_are_imported_listed_and_summed_up() {
    let folder = folder();
    let output = run(folder.path(), &[]);
    assert_both_instances(&output);
    assert!(stdout(&output).contains("imported  2 of 2 instances with 6 plans"));
    assert!(stderr(&output).contains("[1/2] 0025_C101: plans for short-haul: 3"));
}

#[test]
fn a_second_run_finds_everything_done() {
    let folder = folder();
    let first = run_in_file(folder.path());
    assert_both_instances(&first);

    let second = run_in_file(folder.path());
    assert_both_instances(&second);
    assert_eq!(listed(&second), listed(&first));
    let stdout = stdout(&second);
    assert!(
        stdout.contains("imported  0 of 2 instances with 0 plans"),
        "{stdout}"
    );
    assert!(
        stdout.contains("2 were there before, 0 refused"),
        "{stdout}"
    );
    assert!(stdout.contains("commands  0 accepted"), "{stdout}");
}

#[test]
fn a_malformed_file_is_named_with_its_line_and_nothing_is_imported() {
    let folder = folder();
    let malformed = INSTANCE.replace("2 6 8 10", "2 6 eight 10");
    write(folder.path(), "0025_C201.txt", &malformed);

    let output = run_in_file(folder.path());
    assert!(!output.status.success());
    let place = format!("{}:5: ", folder.path().join("0025_C201.txt").display());
    let stderr = stderr(&output);
    assert!(stderr.contains(&place), "{stderr}");
    assert!(
        stderr.contains("expected y, a finite number, found \"eight\""),
        "{stderr}"
    );
    assert!(!folder.path().join("plans.db").exists());
}

#[test]
fn an_overloaded_route_is_refused_with_its_instance_and_the_others_go_on() {
    let folder = folder();
    let small = INSTANCE
        .replacen("20\n", "15\n", 1)
        .replace("3 0 10 20", "3 0 10 5");
    write(folder.path(), "0025_C101.txt", &small);

    let output = run_in_file(folder.path());
    assert!(!output.status.success());
    let reason = "0025_C101, route 1: stop 2 (customer 2): \
                  brings the load to 20, the vehicle carries 15";
    let stderr = stderr(&output);
    assert!(stderr.contains(reason), "{stderr}");
    assert!(stderr.contains("1 of 2 instances were refused"), "{stderr}");
    let rows = listed(&output);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row[1] == "0025_C201"), "{rows:?}");

    // Mended, it is imported, and the other is left as it is.
    write(folder.path(), "0025_C101.txt", INSTANCE);
    let output = run_in_file(folder.path());
    assert_both_instances(&output);
    assert!(stdout(&output).contains("imported  1 of 2 instances with 3 plans"));
}

#[test]
fn totals_that_are_not_those_of_the_files_are_an_error() {
    let folder = folder();
    let wrong = ROUTES.replacen("50.000", "49.000", 1);
    write(folder.path(), "best_known_25.txt", &wrong);
    let output = run(folder.path(), &[]);
    assert!(!output.status.success());
    let stderr = stderr(&output);
    let reason = "0025_C101: expected a distance of 49 in the list, found 50.000";
    assert!(stderr.contains(reason), "{stderr}");
}

#[tokio::test]
async fn postgres_shows_what_sqlite_shows() {
    let folder = folder();
    let database = TestDatabase::create().await;
    let output = run(folder.path(), &["--database-url", database.url()]);
    assert_both_instances(&output);
    assert_eq!(listed(&output), listed(&run(folder.path(), &[])));
}
