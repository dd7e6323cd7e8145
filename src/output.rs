//! The only place that prints. Results go to stdout, everything else to stderr; all of it is redacted, and a reader that
//! went away (`mongoferry jobs | head -1`) is no error.

use crate::error::{Error, Result};
use crate::redact::redact;
use indicatif::{MultiProgress, ProgressDrawTarget};
use serde_json::{Value, json};
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bars of this process. Hidden until [`show_progress`]: every line on stderr suspends them, drawn or not.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));

/// Whether stderr is read by a machine.
static JSON: AtomicBool = AtomicBool::new(false);

/// The keys of a result whose values are this program's own words, which a script compares. A password that happens to
/// be `done` must not turn them into asterisks, nor any key.
const OWN_WORDS: [&str; 2] = ["status", "step"];

/// The bars to add to. What is put into a bar's message is not redacted: only counts and names belong there.
pub fn progress_bars() -> &'static MultiProgress {
    &BARS
}

/// Draws the bars from now on, when stderr is a terminal.
pub fn show_progress() {
    if std::io::stderr().is_terminal() {
        BARS.set_draw_target(ProgressDrawTarget::stderr());
    }
}

/// Whether somebody looks at the bars.
pub fn progress_is_shown() -> bool {
    !BARS.is_hidden()
}

/// Errors are JSON lines from now on.
pub fn errors_as_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// One or more lines of result, to stdout.
pub fn result_line(text: &str) -> Result<()> {
    BARS.suspend(|| write_result(&format!("{}\n", redact(text))))
}

/// A result for machines, to stdout, as one line.
pub fn result_json(value: &Value) -> Result<()> {
    let line = format!("{}\n", redacted(value));
    BARS.suspend(|| write_result(&line))
}

fn write_result(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::internal(format!("cannot write the result to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// A result without secrets, whatever it is written to.
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(text).into_owned()),
        Value::Array(values) => Value::Array(values.iter().map(redacted).collect()),
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                let own = OWN_WORDS.contains(&key.as_str()) && value.is_string();
                (key.clone(), if own { value.clone() } else { redacted(value) })
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

/// One line to stderr, whatever the text: a line break in it becomes `\n`. Suspends the bars. That stderr cannot be
/// written is nothing anybody could be told.
pub fn stderr_line(text: &str) {
    BARS.suspend(|| stderr_line_at_once(text));
}

/// The same without suspending the bars, which a panic may have left locked.
pub fn stderr_line_at_once(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", one_line(text));
}

fn one_line(text: &str) -> String {
    redact(text.trim_end()).replace('\r', "").replace('\n', "\\n")
}

/// The error that ends this process, as its one line on stderr.
pub fn error(error: &Error) {
    stderr_line(&error_text(error, JSON.load(Ordering::Relaxed)));
}

fn error_text(error: &Error, as_json: bool) -> String {
    if !as_json {
        return format!("error: {error}");
    }
    let message = redact(&error.to_string()).into_owned();
    let (kind, code) = (error.kind().name(), error.kind().exit_code());
    json!({ "timestamp": crate::clock::wall(), "level": "ERROR", "kind": kind, "exit_code": code, "message": message })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::register;

    #[test]
    fn own_words_survive_an_unlucky_password() {
        register("yielded-40x");
        let value = json!({ "status": "yielded-40x", "yielded-40x": ["a yielded-40x b", 7, null] });
        let shown = json!({ "status": "yielded-40x", "yielded-40x": ["a *** b", 7, null] });
        assert_eq!(redacted(&value), shown);
    }

    #[test]
    fn a_line_is_one_line_without_secrets() {
        register("line\nbreak-41x");
        assert_eq!(one_line("a\r\nb line\nbreak-41x\n"), "a\\nb ***");
    }

    #[test]
    fn errors_are_one_line_for_people_and_one_object_for_machines() {
        let error = Error::busy("lane 2 is held; use --takeover");
        assert_eq!(error_text(&error, false), "error: lane 2 is held; use --takeover");
        let text = error_text(&error, true);
        assert!(text.contains(r#""kind":"Busy""#) && text.contains(r#""exit_code":3"#), "{text}");
    }
}
