//! A subscriber that remembers the framework's spans.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// The spans that were made on this thread while it lives.
pub(super) struct Recorded {
    spans: Arc<Spans>,
    _guard: DefaultGuard,
}

#[derive(Default)]
struct Spans {
    texts: Mutex<Vec<String>>,
    ids: AtomicU64,
}

impl Recorded {
    pub(super) fn start() -> Self {
        // A place that another thread comes to first is else taken to interest nobody.
        static ALWAYS: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Spans::default()));
        LazyLock::force(&ALWAYS);
        let spans = Arc::new(Spans::default());
        Self {
            _guard: tracing::subscriber::set_default(Arc::clone(&spans)),
            spans,
        }
    }

    /// Level and fields of each span so far, which are forgotten.
    pub(super) fn take(&self) -> Vec<String> {
        let texts = self.spans.texts.lock();
        std::mem::take(&mut texts.unwrap_or_else(PoisonError::into_inner))
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "cqrs"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().level().to_string());
        span.record(&mut text);
        let texts = self.texts.lock();
        texts.unwrap_or_else(PoisonError::into_inner).push(text.0);
        Id::from_u64(self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
