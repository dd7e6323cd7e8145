//! Writing a report where a person looks for it: whole or not at all, since half a page must not be signed.

use crate::error::{Error, Result};
use crate::random::random_id;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a file beside its place and then moves it there. One that is there is replaced.
///
/// # Errors
/// Bad input for what is no file, and for a place that cannot be written to.
pub fn write(path: &Path, content: &str) -> Result<()> {
    let refused =
        |why: &dyn std::fmt::Display| Error::bad_input(format!("--html {} {why}; choose another file", path.display()));
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => return Err(refused(&"is a folder")),
        Ok(there) if !there.is_file() => return Err(refused(&"is no file")),
        _ => {}
    }
    let Some(name) = path.file_name() else { return Err(refused(&"names no file")) };
    let mut draft_name = std::ffi::OsString::from(".");
    draft_name.push(name);
    draft_name.push(format!(".{}", random_id()));
    let draft = path.with_file_name(draft_name);
    let written = write_and_move(&draft, path, content);
    if written.is_err() {
        // Where it cannot be removed either there is nothing more to do.
        let _ = fs::remove_file(&draft);
    }
    written.map_err(|error| refused(&format!("cannot be written: {error}")))
}

fn write_and_move(draft: &PathBuf, path: &Path, content: &str) -> io::Result<()> {
    let mut file = File::create_new(draft)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_file_is_replaced_and_a_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.html");
        for content in ["one", "two"] {
            write(&file, content).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        for (path, why) in [
            (folder.path().to_owned(), "is a folder"),
            (folder.path().join("none/report.html"), "cannot be written"),
            (PathBuf::from("/dev/null"), "is no file"),
            (PathBuf::from(".."), "is a folder"),
        ] {
            let error = write(&path, "three").unwrap_err();
            assert_eq!(error.kind(), Kind::BadInput);
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
