//! Logging and panics: one line each, redacted, on stderr.
//!
//! Only mongoferry's own lines follow `--log-level`. Libraries are heard from `warn` on, whatever the level: at `debug`
//! the AWS SDK logs signed requests, and nobody who debugs a copy is helped by the frames of HTTP/2.

mod json;

use crate::{clock, output};
use std::fmt;
use std::io;
use std::panic::PanicHookInfo;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, filter};

/// How log lines look (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: `2026-11-23T09:33:20.123Z info  message key=value`, with a progress bar on a terminal.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Starts logging. The second call in a process does nothing, as tests need it.
pub fn init(format: LogFormat, level: Level) {
    let targets = filter::Targets::new()
        .with_default(Level::WARN.min(level))
        // It repeats each error that the function answers with.
        .with_target("lambda_runtime::layers", filter::LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let layer = tracing_subscriber::fmt::layer().with_writer(Lines);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(false).event_format(TextLine).boxed(),
        LogFormat::Json => layer.json().event_format(json::JsonLine).boxed(),
    };
    // An error says that a subscriber is there already.
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
}

/// From now on a panic prints one redacted line instead of a backtrace. A backtrace is no use to an operator, and what
/// panics quote may be anything.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| output::stderr_line_at_once(&panic_line(info))));
}

fn panic_line(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let message = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text.as_str(),
        (None, None) => "panic",
    };
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    format!("internal error: {message}{place} (a defect; please report)")
}

/// `time level message key=value span-key=value`, all in one line.
struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        write!(writer, "{} {level:<5} ", clock::wall())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                write!(writer, " {fields}")?;
            }
        }
        writeln!(writer)
    }
}

/// Hands each event to [`output::stderr_line`], which redacts it and moves the progress bar out of the way.
#[derive(Debug, Clone, Copy)]
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines
    }
}

impl io::Write for Lines {
    /// The formatter hands over an event at a time, always whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        output::stderr_line(&String::from_utf8_lossy(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(super) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Kept {
        fn write(&mut self, event: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(event);
            Ok(event.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn ids_of_spans_come_last_in_the_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).event_format(TextLine);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::error_span!("lane", job = "shop", lane = 3).entered();
            tracing::error!(documents = 7, "lane saved");
        });
        let line = kept.text();
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!((time.len(), rest), (24, "error lane saved documents=7 job=\"shop\" lane=3\n"));
    }
}
