//! Numbered points before and after every effect, at which a test makes the process abort, panic or freeze.
//!
//! Built only with the feature `crash-points`; otherwise [`around`] is nothing but its argument. With
//! `MONGOFERRY_CRASH_LOG=FILE` each point is written down as it is passed, with `MONGOFERRY_CRASH_AT=N` the process
//! aborts at the N-th. With `MONGOFERRY_FREEZE_BEFORE=NAME:N` it stops before the N-th effect of this name, as if it were
//! suspended, until somebody sends it `SIGCONT`; with `MONGOFERRY_PANIC_BEFORE=NAME:N` it panics there.

#[cfg(feature = "crash-points")]
pub use enabled::around;

/// The effect, and nothing else.
#[cfg(not(feature = "crash-points"))]
pub async fn around<T>(_name: &str, effect: impl Future<Output = T>) -> T {
    effect.await
}

#[cfg(feature = "crash-points")]
mod enabled {
    use crate::environment::variable;
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Settings {
        abort_at: Option<u64>,
        freeze: Option<(String, u64)>,
        panic: Option<(String, u64)>,
        log: Option<String>,
    }

    fn settings() -> &'static Settings {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        SETTINGS.get_or_init(|| Settings {
            abort_at: variable("MONGOFERRY_CRASH_AT").and_then(|number| number.parse().ok()),
            freeze: effect("MONGOFERRY_FREEZE_BEFORE"),
            panic: effect("MONGOFERRY_PANIC_BEFORE"),
            log: variable("MONGOFERRY_CRASH_LOG"),
        })
    }

    /// The N-th effect of a name, as `NAME:N`.
    fn effect(name: &str) -> Option<(String, u64)> {
        let text = variable(name)?;
        let (name, time) = text.split_once(':')?;
        Some((name.to_owned(), time.parse().ok()?))
    }

    /// Whether this is the point that is asked for, which counts those of its name.
    fn is_at(asked: &Option<(String, u64)>, passed: &AtomicU64, name: &str) -> bool {
        let Some((asked, time)) = asked else { return false };
        asked == name && passed.fetch_add(1, Ordering::SeqCst) + 1 == *time
    }

    /// Runs the effect between two points.
    pub async fn around<T>(name: &str, effect: impl Future<Output = T>) -> T {
        point(name, "before");
        let result = effect.await;
        point(name, "after");
        result
    }

    fn point(name: &str, side: &str) {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        static FREEZES: AtomicU64 = AtomicU64::new(0);
        static PANICS: AtomicU64 = AtomicU64::new(0);
        let settings = settings();
        let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(path) = &settings.log {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let written = opened.and_then(|mut file| writeln!(file, "{number} {side} {name}"));
            written.expect("a test named a file that can be written");
        }
        if settings.abort_at == Some(number) {
            std::process::abort();
        }
        if side == "before" && is_at(&settings.freeze, &FREEZES, name) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
                .expect("a process may stop itself");
        }
        assert!(side != "before" || !is_at(&settings.panic, &PANICS, name), "a test asked for a panic before {name}");
    }
}
