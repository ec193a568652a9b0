//! The warnings of the framework, as they come.

use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static WARNINGS: LazyLock<watch::Sender<Vec<String>>> = LazyLock::new(watch::Sender::default);

/// Begins to remember the warnings of all tests, with their fields.
pub(crate) fn remember() {
    // There is one for the whole process; a second call finds it.
    let _ = tracing::subscriber::set_global_default(Remembers);
}

/// Waits until there is a warning with all of these words in it; all that there are.
pub(crate) async fn until(words: &[&str]) -> Vec<String> {
    let has_all = |text: &&String| words.iter().all(|word| text.contains(word));
    let mut warnings = WARNINGS.subscribe();
    let found = warnings.wait_for(|all| all.iter().any(|text| has_all(&text)));
    let all = found.await.expect("the sender lives for ever");
    all.iter().filter(has_all).cloned().collect()
}

/// All warnings with all of these words in them that there are by now.
pub(crate) fn so_far(words: &[&str]) -> Vec<String> {
    let all = WARNINGS.borrow();
    let has_all = |text: &&String| words.iter().all(|word| text.contains(word));
    all.iter().filter(has_all).cloned().collect()
}

struct Remembers;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Remembers {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::WARN
            && metadata.target().starts_with("cqrs_sqlx")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        WARNINGS.send_modify(|all| all.push(text.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
