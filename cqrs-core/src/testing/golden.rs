//! The payloads of events as files, so that no release forgets how to read one.

use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::event::DomainEvent;
use crate::payload;

/// A folder of payloads, one file for each event type and schema version that was ever written:
/// `order.placed.v1.json`. Keep it under version control.
///
/// # Example
///
/// ```no_run
/// use cqrs_core::testing::Golden;
/// # use cqrs_core::*;
/// # #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, DomainEvent)]
/// # #[event(aggregate = "order")]
/// # enum OrderEvent { Placed { customer: String }, Paid }
///
/// #[test]
/// fn old_events_are_read() {
///     let samples = [OrderEvent::Placed { customer: "Ada".to_owned() }, OrderEvent::Paid];
///     let all = Golden::<OrderEvent>::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/events"));
///     let read = all.check(&samples);
///     assert_eq!(read.len(), 3, "two of now, one of old");
/// }
/// ```
#[derive(Debug)]
pub struct Golden<E> {
    folder: PathBuf,
    records: bool,
    of: PhantomData<fn() -> E>,
}

impl<E: DomainEvent> Golden<E> {
    /// The payloads in a folder. Those that are missing are written where the environment variable
    /// `GOLDEN` is `record`.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self {
            folder: folder.as_ref().to_owned(),
            records: is_recording(),
            of: PhantomData,
        }
    }

    /// The same, and writes what is missing.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.records = true;
        self
    }

    /// Checks that the code still writes the samples as the files have them, that there is a file
    /// for each event type of now, and that every file in the folder can be read. Returns what was
    /// read, by the names of the files.
    ///
    /// A sample that is written differently than before needs a new `#[event(version = ...)]`, an
    /// upcaster from the old one, and stays as the file of the old version.
    ///
    /// # Panics
    ///
    /// Where any of that does not hold, with all that does not.
    #[track_caller]
    pub fn check(&self, samples: &[E]) -> Vec<(String, E)> {
        let mut problems = Vec::new();
        for known in E::EVENT_TYPES {
            if !samples.iter().any(|sample| sample.event_type() == known) {
                problems.push(format!("there is no sample of {}", known.name));
            }
        }
        for sample in samples {
            if let Err(problem) = self.check_sample(sample) {
                problems.push(problem);
            }
        }
        let mut read = Vec::new();
        match files(&self.folder) {
            Ok(files) => {
                for name in files {
                    match self.read(&name) {
                        Ok(event) => read.push((name, event)),
                        Err(problem) => problems.push(format!("{name}: {problem}")),
                    }
                }
            }
            Err(error) => problems.push(format!("{}: {error}", self.folder.display())),
        }
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        read
    }

    fn check_sample(&self, sample: &E) -> Result<(), String> {
        let written = payload::encode(sample).map_err(|error| error.to_string())?;
        let event_type = sample.event_type();
        let name = format!("{}.v{}.json", event_type.name, event_type.schema_version);
        let path = self.folder.join(&name);
        match fs::read_to_string(&path) {
            Ok(stored) if stored.trim_end() == written => Ok(()),
            Ok(stored) => Err(format!(
                "{name}: the code writes another payload under the same schema version:\n- {}\n+ {written}",
                stored.trim_end()
            )),
            Err(_) if self.records => {
                let recorded = fs::create_dir_all(&self.folder)
                    .and_then(|()| fs::write(&path, format!("{written}\n")));
                recorded.map_err(|error| format!("{name}: {error}"))
            }
            Err(error) => Err(format!(
                "{name}: {error}; run the test once with GOLDEN=record to write it"
            )),
        }
    }

    fn read(&self, name: &str) -> Result<E, String> {
        let (event_type, version) = event_of(name)?;
        let text = fs::read_to_string(self.folder.join(name)).map_err(|error| error.to_string())?;
        payload::decode(event_type, version, text.trim_end()).map_err(|error| error.to_string())
    }
}

/// Whether files that are missing are written.
fn is_recording() -> bool {
    std::env::var("GOLDEN").is_ok_and(|value| value == "record")
}

/// The names of the files in a folder, sorted.
pub(super) fn files(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if Path::new(&name)
            .extension()
            .is_some_and(|kind| kind == "json")
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The event type and schema version that the name of a file tells.
pub(super) fn event_of(name: &str) -> Result<(&str, u32), String> {
    let parts = name
        .strip_suffix(".json")
        .and_then(|name| name.rsplit_once(".v"))
        .and_then(|(event_type, version)| Some((event_type, version.parse().ok()?)));
    parts.ok_or_else(|| "a file of a payload is named as order.placed.v1.json".to_owned())
}
