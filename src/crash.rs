//! Numbered points before and after every effect, at which a test makes the process abort or freeze.
//!
//! Built only with the feature `crash-points`; otherwise [`around`] is nothing but its argument. With
//! `MONGOFERRY_CRASH_LOG=FILE` each point is written down as it is passed, with `MONGOFERRY_CRASH_AT=N` the process
//! aborts at the N-th. With `MONGOFERRY_FREEZE_BEFORE=NAME:N` it stops before the N-th effect of this name, as if it were
//! suspended, until somebody sends it `SIGCONT`.

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
        log: Option<String>,
    }

    fn settings() -> &'static Settings {
        static SETTINGS: OnceLock<Settings> = OnceLock::new();
        SETTINGS.get_or_init(|| Settings {
            abort_at: variable("MONGOFERRY_CRASH_AT").and_then(|number| number.parse().ok()),
            freeze: variable("MONGOFERRY_FREEZE_BEFORE").and_then(|text| {
                let (name, time) = text.split_once(':')?;
                Some((name.to_owned(), time.parse().ok()?))
            }),
            log: variable("MONGOFERRY_CRASH_LOG"),
        })
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
        if let Some((frozen, time)) = &settings.freeze
            && (frozen.as_str(), "before") == (name, side)
            && FREEZES.fetch_add(1, Ordering::SeqCst) + 1 == *time
        {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
                .expect("a process may stop itself");
        }
    }
}
