//! Rules about the source tree that no lint can express.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

/// What pure code does not touch. `bson` is a data format and allowed.
const IMPURE: [&str; 11] = [
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
];

#[test]
fn the_model_is_pure() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        seen += 1;
        let source = std::fs::read_to_string(&path).unwrap();
        for (number, line) in source.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            // `use std::{env, fs}` says the same in other words.
            let grouped = code.contains("std::{") && ["env", "fs"].iter().any(|module| code.contains(module));
            let found = IMPURE.iter().find(|word| code.contains(**word));
            assert!(found.is_none() && !grouped, "{}:{}: {}", path.display(), number + 1, line.trim());
        }
    }
    assert!(seen > 1, "looked at {seen} files");
}
