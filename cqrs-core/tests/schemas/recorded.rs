//! The files in which schemas are kept.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use cqrs_core::DomainEvent;
use cqrs_core::schema::{Compatibility, EventSchemas};
use cqrs_core::testing::SchemaFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::derived::Dug;
use crate::releases::{Empty, OptionalText, Small, Text, TextAndMaybe, TextAndMore};
use crate::{complaint, only, schemas};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn files(&self) -> SchemaFiles {
        SchemaFiles::new(&self.0)
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(&self.0).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.0.join(name)).unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const FILE: &str = "order.placed.v1.json";

#[test]
fn a_release_is_recorded_and_then_held_to() {
    let folder = Folder::new("schemas_recorded");
    let all = schemas::<Text>().with::<Dug>().unwrap();
    let text = complaint(|| {
        folder.files().check(&all, Compatibility::Full);
    });
    assert!(text.contains("GOLDEN=release"), "{text}");
    assert!(!folder.0.exists());

    let recorded = folder.files().recording().check(&all, Compatibility::Full);
    assert_eq!(recorded, [FILE, "tree.dug.v1.json"]);
    assert_eq!(folder.names(), [FILE, "tree.dug.v1.json"]);
    let file = folder.read(FILE);
    let schema = only::<Text>();
    assert_eq!(
        file,
        json!({"schemas": [{
            "id": schema.content_id(),
            "written": schema.written,
            "read": schema.read,
        }]})
    );
    let nothing: [String; 0] = [];
    assert_eq!(folder.files().check(&all, Compatibility::Full), nothing);

    // A change that both sides can live with is for the next release to record.
    let next = schemas::<TextAndMaybe>().with::<Dug>().unwrap();
    assert_eq!(folder.files().check(&next, Compatibility::Full), [FILE]);
    assert_eq!(folder.read(FILE), file);
    assert_eq!(
        folder.files().recording().check(&next, Compatibility::Full),
        [FILE]
    );
    assert_eq!(folder.files().check(&next, Compatibility::Full), nothing);
    let both = folder.read(FILE);
    assert_eq!(both["schemas"].as_array().unwrap().len(), 2);
    assert_eq!(both["schemas"][0], file["schemas"][0]);

    // One that comes back is not there twice.
    assert_eq!(
        folder.files().recording().check(&all, Compatibility::Full),
        [FILE]
    );
    let back = folder.read(FILE);
    assert_eq!(back["schemas"][1], file["schemas"][0]);
    assert_eq!(back["schemas"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_not_compatible_is_refused_and_not_recorded() {
    let folder = Folder::new("schemas_refused");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let before = folder.read(FILE);
    let text = complaint(|| {
        let files = folder.files().recording();
        files.check(
            &schemas::<TextAndMore>().with::<Dug>().unwrap(),
            Compatibility::Full,
        );
    });
    assert_eq!(
        text,
        "order.placed v1 is not backward compatible: payloads in the log are not read by the code
  `y` is required, and not always written
  give it a new version, and lift the payloads of the old one: #[event(version = 2, upcast(1 = ...))]"
    );
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<OptionalText>(), Compatibility::Full);
    });
    assert_eq!(
        text,
        "order.placed v1 is not forward compatible: what the code writes is not read by the last release
  `x` may be null, and only a string is accepted
  give it a new version, and lift the payloads of the old one: #[event(version = 2, upcast(1 = ...))]"
    );
    let both = complaint(|| {
        folder
            .files()
            .check(&schemas::<Small>(), Compatibility::Full);
    });
    assert!(
        both.contains("is not backward") && both.contains("is not forward"),
        "{both}"
    );
    assert_eq!((folder.read(FILE), folder.names().len()), (before, 1));
}

/// Each direction alone.
#[test]
fn a_direction_is_checked_where_it_is_asked_for() {
    let folder = Folder::new("schemas_directions");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let passes = |of: &EventSchemas, compatibility| {
        catch_unwind(AssertUnwindSafe(|| folder.files().check(of, compatibility))).is_ok()
    };
    let wider = schemas::<OptionalText>();
    assert!(passes(&wider, Compatibility::Backward));
    assert!(!passes(&wider, Compatibility::Forward));
    let narrower = schemas::<TextAndMore>();
    assert!(!passes(&narrower, Compatibility::Backward));
    assert!(passes(&narrower, Compatibility::Forward));
}

/// A field that goes, and comes back as something else, is in the log as what it was first.
#[test]
fn all_that_was_ever_written_under_a_version_is_read() {
    let folder = Folder::new("schemas_transitive");
    let backward = Compatibility::Backward;
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), backward);
    folder
        .files()
        .recording()
        .check(&schemas::<Empty>(), backward);

    #[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
    #[event(aggregate = "order", name = "order.placed")]
    struct Back {
        #[serde(default)]
        x: Option<u8>,
    }
    assert!(only::<Back>().refuses(&only::<Empty>()).is_empty());
    let text = complaint(|| {
        folder.files().check(&schemas::<Back>(), backward);
    });
    assert!(text.contains("`x` may be a string"), "{text}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Lifted {
    #[event(version = 2, upcast(1 = counted))]
    Placed { x: String, y: u8 },
}

fn counted(mut old: Value) -> Value {
    old["y"] = 1.into();
    old
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Unlifted {
    #[event(version = 2, since = 2)]
    Placed { x: String, y: u8 },
}

#[test]
fn an_upcaster_makes_a_new_version_readable() {
    let folder = Folder::new("schemas_lifted");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    let name = "order.placed.v2.json";
    assert_eq!(
        folder
            .files()
            .check(&schemas::<Lifted>(), Compatibility::Full),
        [name]
    );
    let files = folder.files().recording();
    assert_eq!(
        files.check(&schemas::<Lifted>(), Compatibility::Full),
        [name]
    );
    assert_eq!(folder.names(), [FILE, name]);

    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<Unlifted>(), Compatibility::Full);
    });
    assert!(text.contains("order.placed v1"), "{text}");
    assert!(text.contains("nothing lifts it"), "{text}");
    // The code before it cannot read the new one.
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<Text>(), Compatibility::Full);
    });
    assert!(
        text.contains("has schema version 2, the code has 1"),
        "{text}"
    );
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Renamed {
    #[event(was("order.placed"))]
    Ordered { x: Option<String> },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum WronglyRenamed {
    #[event(was("order.placed"))]
    Ordered { x: u8 },
}

#[test]
fn a_renamed_event_type_reads_what_it_wrote_before() {
    let folder = Folder::new("schemas_renamed");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    // Nobody who knows the former name reads the new one, so there is nothing to compare forward.
    assert_eq!(
        folder
            .files()
            .check(&schemas::<Renamed>(), Compatibility::Full),
        ["order.ordered.v1.json"]
    );
    let text = complaint(|| {
        folder
            .files()
            .check(&schemas::<WronglyRenamed>(), Compatibility::Full);
    });
    assert!(
        text.starts_with("order.placed v1 is not backward"),
        "{text}"
    );
    let text = complaint(|| {
        folder.files().check(&schemas::<Dug>(), Compatibility::Full);
    });
    assert!(text.contains("#[event(was(\"order.placed\"))]"), "{text}");
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, DomainEvent)]
#[event(aggregate = "order")]
enum Reserved {
    #[event(was("order.placed"))]
    Reserved { by: u8 },
}

/// A name that one enum had once, and another has now, is that of the other.
#[test]
fn a_former_name_hides_no_current_one() {
    let folder = Folder::new("schemas_former");
    let all = schemas::<Reserved>().with::<Text>().unwrap();
    let files = folder.files().recording();
    let names = files.check(&all, Compatibility::Full);
    assert_eq!(names, [FILE, "order.reserved.v1.json"]);
    let nothing: [String; 0] = [];
    assert_eq!(folder.files().check(&all, Compatibility::Full), nothing);
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = Folder::new("schemas_damaged");
    folder
        .files()
        .recording()
        .check(&schemas::<Text>(), Compatibility::Full);
    for (name, content, says) in [
        ("order.json", "{}", "order.json: "),
        (FILE, "{", FILE),
        (FILE, r#"{"schemas": []}"#, "it has no schema"),
        (FILE, r#"{"schemas": [], "more": 1}"#, "unknown field"),
    ] {
        let path = folder.0.join(name);
        fs::write(&path, content).unwrap();
        let text = complaint(|| {
            folder
                .files()
                .check(&schemas::<Text>(), Compatibility::Full);
        });
        assert!(text.contains(says), "{text}");
        fs::remove_file(path).unwrap();
    }
}
