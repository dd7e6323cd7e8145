//! Rules about the source tree that no lint can express.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

/// What pure code does not touch. `bson` is a data format and allowed.
const IMPURE: [&str; 12] = [
    "tokio",
    "mongodb::",
    "aws_",
    "async fn",
    ".await",
    "std::env",
    "std::fs",
    "SystemTime",
    "Instant",
    "crate::clock",
    "crate::environment",
    "crate::output",
];

/// Comments may speak of anything.
fn is_impure(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    // `use std::{env, fs}` says the same in other words.
    let grouped = code.contains("std::{") && ["env", "fs"].iter().any(|module| code.contains(module));
    grouped || IMPURE.iter().any(|word| code.contains(word))
}

/// A task that nobody counts goes on when the run that began it is over ([`crate::tasks`]).
#[test]
fn tasks_are_begun_in_one_place() {
    for_each_line("src", |place, line| {
        let is_begun = line.contains("tokio::spawn(") || line.contains("tokio::task::spawn(");
        assert!(
            !is_begun || ["src/tasks.rs", "src/layout.rs"].iter().any(|home| place.contains(home)),
            "{place}: {line}"
        );
    });
}

#[test]
fn the_model_is_pure() {
    for_each_line("src/model", |place, line| assert!(!is_impure(line), "{place}: {line}"));
}

fn for_each_line(folder: &str, check: impl Fn(&str, &str)) {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            seen += 1;
            let source = std::fs::read_to_string(&path).unwrap();
            for (index, line) in source.lines().enumerate() {
                check(&format!("{}:{}", path.display(), index + 1), line.trim());
            }
        }
    }
    assert!(seen > 1, "looked at {seen} files");
}

#[test]
fn impure_code_is_recognised() {
    for line in
        ["use tokio::sync::Mutex;", "let c: mongodb::Client;", "use std::{env, fmt};", "std::time::Instant::now()"]
    {
        assert!(is_impure(line), "{line}");
    }
    for line in ["use std::time::Duration;", "/// tokio", "use std::{fmt, ops};", "let x = 1; // std::fs"] {
        assert!(!is_impure(line), "{line}");
    }
}
