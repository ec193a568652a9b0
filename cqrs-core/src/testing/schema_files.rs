//! The schemas of the last release as files, so that no release breaks what others can read.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::golden;
use crate::schema::{
    Compatibility, EventSchema, EventSchemas, Incompatibility, Pair, SchemaSet, refused,
};

/// A folder with the schemas of all events that were released, one file for each event type and
/// schema version: `order.placed.v1.json`. Keep it under version control, and record it with each
/// release.
///
/// A file holds every schema that the event type had under its version, oldest first: all of that may
/// be in the log.
///
/// # Example
///
/// ```no_run
/// use cqrs_core::schema::{Compatibility, EventSchemas};
/// use cqrs_core::testing::SchemaFiles;
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed { customer: String }, Paid }
///
/// fn schemas() -> Result<EventSchemas> {
///     EventSchemas::new().with::<OrderEvent>()
/// }
///
/// #[test]
/// fn payloads_stay_readable() {
///     let released = SchemaFiles::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"));
///     released.check(&schemas().unwrap(), Compatibility::Full);
/// }
/// ```
#[derive(Debug)]
pub struct SchemaFiles {
    folder: PathBuf,
    records: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    schemas: Vec<RecordedSchema>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordedSchema {
    /// The id of its content, to find it.
    id: String,
    written: Value,
    read: Value,
}

impl RecordedSchema {
    fn of(schema: &EventSchema) -> Self {
        Self {
            id: schema.content_id(),
            written: schema.written.clone(),
            read: schema.read.clone(),
        }
    }

    fn pair(&self) -> Pair<'_> {
        Pair {
            written: &self.written,
            read: &self.read,
        }
    }
}

/// The files by event type and version.
type Files = BTreeMap<(String, u32), Recorded>;

impl SchemaFiles {
    /// The schemas in a folder. Where the environment variable `GOLDEN` is `release`, those that are
    /// not there are added.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_owned(),
            records: std::env::var("GOLDEN").is_ok_and(|value| value == "release"),
        }
    }

    /// The same, and adds what is not there.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.records = true;
        self
    }

    /// Checks that payloads stay readable, and returns the names of the files that the next release
    /// adds or changes; none right after it was recorded.
    ///
    /// | payloads of | are checked |
    /// |---|---|
    /// | an event type and version of now | backward: by all schemas in its file. Forward: by the last one |
    /// | a former name of an event type | backward |
    /// | an older version | to have an upcaster; golden files ([`Golden`](super::Golden)) tell whether it does its work |
    /// | a new event type or version | not at all: code of the last release does not know it |
    ///
    /// Nothing is recorded where anything is wrong.
    ///
    /// # Panics
    ///
    /// Where any of that does not hold, with all that does not; and where nothing is recorded yet.
    #[track_caller]
    pub fn check(&self, schemas: &EventSchemas, compatibility: Compatibility) -> Vec<String> {
        let files = match self.load() {
            Ok(files) => files,
            Err(problem) => panic!("{problem}"),
        };
        let nothing = files.is_empty() && schemas.iter().next().is_some();
        assert!(
            self.records || !nothing,
            "{} has no schemas; run the test once with GOLDEN=release to write them",
            self.folder.display()
        );
        let mut problems = Vec::new();
        for ((event_type, version), recorded) in &files {
            let checked = check_file(schemas, compatibility, (event_type, *version), recorded);
            if let Err(problem) = checked {
                problems.push(problem);
            }
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        let changed = changed(schemas, &files);
        let names = changed
            .keys()
            .map(|(name, version)| file_name(name, *version));
        let names = names.collect();
        if self.records
            && let Err(problem) = self.record(&changed)
        {
            panic!("{problem}");
        }
        names
    }

    fn load(&self) -> Result<Files, String> {
        let mut files = Files::new();
        let names = match golden::files(&self.folder) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            Err(error) => return Err(format!("{}: {error}", self.folder.display())),
        };
        for name in names {
            let key = golden::event_of(&name).map_err(|problem| format!("{name}: {problem}"))?;
            let text = fs::read_to_string(self.folder.join(&name));
            let text = text.map_err(|error| format!("{name}: {error}"))?;
            let file: Recorded =
                serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
            if file.schemas.is_empty() {
                return Err(format!("{name}: it has no schema; delete the file"));
            }
            files.insert((key.0.to_owned(), key.1), file);
        }
        Ok(files)
    }

    fn record(&self, changed: &Files) -> Result<(), String> {
        for ((event_type, version), file) in changed {
            let name = file_name(event_type, *version);
            let text = serde_json::to_string_pretty(file).map_err(|error| error.to_string());
            let recorded = text.and_then(|text| {
                let made = fs::create_dir_all(&self.folder);
                let written = made.and_then(|()| fs::write(self.folder.join(&name), text + "\n"));
                written.map_err(|error| error.to_string())
            });
            recorded.map_err(|problem| format!("{name}: {problem}"))?;
        }
        Ok(())
    }
}

fn file_name(event_type: &str, version: u32) -> String {
    format!("{event_type}.v{version}.json")
}

/// The files that are not as the code has them, as they should be.
fn changed(schemas: &EventSchemas, files: &Files) -> Files {
    let mut changed = Files::new();
    for schema in schemas.iter() {
        let name = schema.event_type.name.to_owned();
        let key = (name, schema.event_type.schema_version);
        let now = RecordedSchema::of(schema);
        let mut file = files.get(&key).cloned().unwrap_or_default();
        if file.schemas.last() == Some(&now) {
            continue;
        }
        // One that comes back is the last again.
        file.schemas.retain(|recorded| *recorded != now);
        file.schemas.push(now);
        changed.insert(key, file);
    }
    changed
}

/// Compares a file with the code.
fn check_file(
    schemas: &EventSchemas,
    compatibility: Compatibility,
    (event_type, version): (&str, u32),
    recorded: &Recorded,
) -> Result<(), String> {
    let find = |place_of: fn(&SchemaSet, &str) -> Option<usize>| {
        let mut sets = schemas.sets().iter();
        sets.find_map(|set| Some((set, place_of(set, event_type)?)))
    };
    let current = find(|set, name| {
        let mut all = set.schemas.iter();
        all.position(|schema| schema.event_type.name == name)
    });
    // What one enum calls so now may be a former name in another.
    let Some((set, place)) = current.or_else(|| find(|set, name| (set.place_of)(name))) else {
        return Err(format!(
            "{event_type} v{version}: it was released, and no event of the code has this name: keep the event type, or name the one that it has become `#[event(was({event_type:?}))]`"
        ));
    };
    let current = &set.schemas[place];
    let of_now = current.event_type;
    if version != of_now.schema_version {
        let readable = (set.check_readable)(event_type, version);
        return readable.map_err(|error| format!("{event_type} v{version}: {error}"));
    }
    let now = Pair {
        written: &current.written,
        read: &current.read,
    };
    let mut text = String::new();
    if compatibility.is_backward() {
        let mut problems: Vec<Incompatibility> = Vec::new();
        for old in &recorded.schemas {
            for problem in refused(old.pair(), now) {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        let title = "is not backward compatible: payloads in the log are not read by the code";
        list(&mut text, (event_type, version), title, &problems);
    }
    let is_renamed = event_type != of_now.name;
    if let (true, false, Some(last)) = (
        compatibility.is_forward(),
        is_renamed,
        recorded.schemas.last(),
    ) {
        let title =
            "is not forward compatible: what the code writes is not read by the last release";
        list(
            &mut text,
            (event_type, version),
            title,
            &refused(now, last.pair()),
        );
    }
    if text.is_empty() {
        return Ok(());
    }
    let next = of_now.schema_version + 1;
    let _ = write!(
        text,
        "  give it a new version, and lift the payloads of the old one: #[event(version = {next}, upcast({version} = ...))]"
    );
    Err(text)
}

fn list(
    text: &mut String,
    (event_type, version): (&str, u32),
    title: &str,
    problems: &[Incompatibility],
) {
    if problems.is_empty() {
        return;
    }
    let _ = writeln!(text, "{event_type} v{version} {title}");
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
}
