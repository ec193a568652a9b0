//! Runs the program and looks at what it prints.

use std::process::Command;

#[test]
fn it_shows_what_its_header_says() {
    let output = Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{stdout}");

    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[..2], ["created plan harbour", "created plan airport"]);
    assert!(
        lines[2].starts_with("added 3 stops to harbour at once in "),
        "{stdout}"
    );
    assert!(lines[2].contains("tries, visible after ("), "{stdout}");
    let rest = [
        "a 4th is refused: the vehicle makes no more than 3 stops",
        "full plans: 1",
        "",
        "plan     stops",
        "airport      0",
        "harbour      3",
        r#"1 north plan harbour v1 plan.created {"stops":0}"#,
        r#"2 north plan airport v1 plan.created {"stops":0}"#,
        r#"3 north plan harbour v2 plan.stop_added {"stops":1}"#,
        r#"4 north plan harbour v3 plan.stop_added {"stops":2}"#,
        r#"5 north plan harbour v4 plan.stop_added {"stops":3}"#,
        "5 events in the log",
    ];
    assert_eq!(lines[3..], rest, "{stdout}");
}
