//! The payloads of events as files, so that no release forgets how to read one.

use std::collections::HashMap;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::event::DomainEvent;
use crate::payload;
use crate::upcast;

/// A folder of payloads, a file for each event type and schema version that was ever written:
/// `order.placed.v1.json`; and where one has several samples, `order.placed.v1.2.json` and so on.
/// Keep it under version control.
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
    /// for each event type of now, for each version that an upcaster reads and for each former name,
    /// and that every file in the folder can be read. Returns what was read, by the names of the
    /// files.
    ///
    /// Several samples of one event type, as for its options, are told apart by their order.
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
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for sample in samples {
            let count = counts.entry(sample.event_type().name).or_default();
            *count += 1;
            if let Err(problem) = self.check_sample(sample, *count) {
                problems.push(problem);
            }
        }
        let mut read = Vec::new();
        match files(&self.folder) {
            Ok(files) => {
                problems.extend(missing::<E>(&files));
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

    fn check_sample(&self, sample: &E, number: usize) -> Result<(), String> {
        let written = payload::encode(sample).map_err(|error| error.to_string())?;
        let event_type = sample.event_type();
        let name = match number {
            1 => file_name(event_type.name, event_type.schema_version),
            _ => format!(
                "{}.v{}.{number}.json",
                event_type.name, event_type.schema_version
            ),
        };
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
        let (event_type, version) = event_of_sample(name)?;
        let text = fs::read_to_string(self.folder.join(name)).map_err(|error| error.to_string())?;
        payload::decode(event_type, version, text.trim_end()).map_err(|error| error.to_string())
    }
}

/// Whether files that are missing are written.
fn is_recording() -> bool {
    std::env::var("GOLDEN").is_ok_and(|value| value == "record")
}

/// What the code reads of older releases, and of which there is no file.
fn missing<E: DomainEvent>(files: &[String]) -> Vec<String> {
    let recorded: Vec<(&str, u32)> = files
        .iter()
        .filter_map(|name| event_of_sample(name).ok())
        .collect();
    let how =
        "run the test of the release that wrote it with GOLDEN=record, or copy one from the log";
    let former = E::FORMER_NAMES.iter().map(|(name, _)| *name);
    let former = former
        .filter(|former| !recorded.iter().any(|(name, _)| name == former))
        .map(|former| format!("there is no file of the former name {former}: {how}"));
    let versions = E::UPCASTS.iter().filter_map(|step| {
        let (variant, from) = step.reads();
        let name = E::EVENT_TYPES[variant].name;
        let mut found = recorded.iter();
        let is_recorded = found.any(|(recorded, version)| {
            *version == from && upcast::variant_of::<E>(recorded) == Some(variant)
        });
        (!is_recorded).then(|| format!("{}: there is no such file: {how}", file_name(name, from)))
    });
    former.chain(versions).collect()
}

fn file_name(event_type: &str, version: u32) -> String {
    format!("{event_type}.v{version}.json")
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
    versioned(name.strip_suffix(".json").unwrap_or(name))
}

/// The same of a file that may be one of several samples.
fn event_of_sample(name: &str) -> Result<(&str, u32), String> {
    let sample = name
        .strip_suffix(".json")
        .and_then(|stem| stem.rsplit_once('.'))
        .filter(|(_, number)| number.parse::<usize>().is_ok());
    match sample {
        Some((stem, _)) => versioned(stem),
        None => event_of(name),
    }
}

fn versioned(stem: &str) -> Result<(&str, u32), String> {
    let parts = stem
        .rsplit_once(".v")
        .and_then(|(event_type, version)| Some((event_type, version.parse().ok()?)));
    parts.ok_or_else(|| "a file of a payload is named as order.placed.v1.json".to_owned())
}
