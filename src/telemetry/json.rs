//! A log line as one JSON object: what an event says, and around it the ids of the spans that it is in, all at the top.

use crate::clock;
use serde_json::{Map, Value, json};
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// `{"timestamp": …, "level": …, "message": …, field: value, span-field: value}`. What an event says wins over its spans,
/// and an inner span over an outer one.
pub struct JsonLine;

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), json!(clock::wall()));
        line.insert("level".to_owned(), json!(event.metadata().level().as_str()));
        let mut fields = Fields(line);
        event.record(&mut fields);
        let Fields(mut line) = fields;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(formatted) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            if let Ok(Value::Object(fields)) = serde_json::from_str(&formatted.fields) {
                for (name, value) in fields {
                    line.entry(name).or_insert(value);
                }
            }
        }
        line.insert("target".to_owned(), json!(event.metadata().target()));
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The fields of an event.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, json!(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, json!(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, json!(format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::super::tests::Kept;
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn ids_of_spans_are_fields_of_the_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().json().event_format(JsonLine);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let empty = tracing::field::Empty;
            let outer = tracing::error_span!("invocation", job = "shop", lane = "?", shard = empty, request = "r-1");
            outer.record("shard", "rs0");
            let _outer = outer.entered();
            let _inner = tracing::error_span!("lane", lane = 3, epoch = 7).entered();
            tracing::warn!(documents = 5, "lane \"saved\"");
        });
        let line: Value = serde_json::from_str(&kept.text()).unwrap();
        for (name, value) in [
            ("level", json!("WARN")),
            ("message", json!("lane \"saved\"")),
            ("documents", json!(5)),
            ("job", json!("shop")),
            ("shard", json!("rs0")),
            ("lane", json!(3)),
            ("epoch", json!(7)),
            ("request", json!("r-1")),
        ] {
            assert_eq!(line[name], value, "{name}: {line}");
        }
        assert_eq!(line["timestamp"].as_str().unwrap().len(), 24);
    }
}
