//! Files that are not what they should be.

use std::fs;

use tempfile::TempDir;

use super::{HEADER, run, write};

fn refusal(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "nothing is imported");
    String::from_utf8(output.stderr).unwrap()
}

/// Line 2 is a good one in each of them.
#[test]
fn a_broken_line_is_named() {
    let folder = TempDir::new().unwrap();
    for (lines, expected) in [
        (
            "b,ann,delivered,yesterday,,,,1/10/2018 0:00",
            "line 3: order_purchase_timestamp: \"yesterday\" is no time like 7/24/2018 20:41",
        ),
        (
            "b,ann,delivered,1/2/2018 8:00,,,13/1/2018 8:00,1/10/2018 0:00",
            "line 3: order_delivered_customer_date: \"13/1/2018 8:00\" is no time",
        ),
        (
            "b,ann,delivered,,,,,1/10/2018 0:00",
            "line 3: order_purchase_timestamp: \"\" is no time",
        ),
        (
            "b,ann,lost,1/2/2018 8:00,,,,1/10/2018 0:00",
            "line 3: order_status: no status of an order: lost",
        ),
        (
            "b,ann,shipped,1/2/2018 8:00",
            "line 3: 4 fields, where the header has 8",
        ),
        (
            ",ann,shipped,1/2/2018 8:00,,,,1/10/2018 0:00",
            "line 3: order_id is empty",
        ),
        (
            "b,ann,shipped,1/2/2018 8:00,,,,1/10/2018 0:00\n\
             a,ben,created,1/2/2018 8:00,,,,1/10/2018 0:00",
            "line 4: order a is on line 2 too",
        ),
    ] {
        let file = write(
            &folder,
            &format!("a,ann,created,1/2/2018 8:00,,,,1/10/2018 0:00\n{lines}\n"),
        );
        let error = refusal(&[&file]);
        let expected = format!("error: reading {file}: {expected}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("orders.csv");
    let path = file.to_str().unwrap();
    let error = refusal(&[path]);
    let expected = format!("error: opening {path}: ");
    assert!(error.starts_with(&expected), "{error}");
    let latin = [HEADER.as_bytes(), b"\n\xe9,,,,,,,\n"].concat();
    for (content, expected) in [
        (&b""[..], "line 1: the header has no column order_id"),
        (HEADER.as_bytes(), "it has no orders"),
        (
            b"order_id,customer_id\na,b\n",
            "line 1: the header has no column order_status",
        ),
        (&latin, "line 2: invalid utf-8: invalid UTF-8 in field 0"),
    ] {
        fs::write(&file, content).unwrap();
        let error = refusal(&[path]);
        let expected = format!("error: reading {path}: {expected}");
        assert!(error.starts_with(&expected), "{error}\n{expected}");
    }
}

#[test]
fn a_check_needs_a_database_with_orders() {
    let folder = TempDir::new().unwrap();
    let none = folder.path().join("none.db");
    let error = refusal(&["--check", "--database", none.to_str().unwrap()]);
    assert!(error.contains("unable to open database file"), "{error}");
    let error = refusal(&["--check"]);
    assert!(error.contains("cqrs_event"), "{error}");
}
