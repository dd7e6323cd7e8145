//! Documents that are a contract: how they look lies in `tests/golden`.

use std::fs;
use std::path::Path;

use serde_json::Value;
use similar::TextDiff;

use super::servers::Failure;

/// Compares a document with the file of this name. `UPDATE_GOLDEN=1` rewrites the file.
///
/// # Errors
/// The lines in which they differ: documents are long, and logs are cut.
pub fn compare_golden(name: &str, document: &Value) -> Result<(), Failure> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = serde_json::to_string_pretty(document)?;
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        fs::write(&file, format!("{text}\n"))?;
    }
    match difference(fs::read_to_string(&file)?.trim_end(), &text) {
        None => Ok(()),
        Some(lines) => Err(format!("{} differs; UPDATE_GOLDEN=1 rewrites it\n{lines}", file.display()).into()),
    }
}

/// The lines in which two texts differ, with one around them.
fn difference(golden: &str, text: &str) -> Option<String> {
    (golden != text).then(|| TextDiff::from_lines(golden, text).unified_diff().context_radius(1).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_a_golden_document_is_named() {
        let lines: Vec<String> = (0..40).map(|n| format!("line {n}")).collect();
        let golden = lines.join("\n");
        assert_eq!(difference(&golden, &golden), None);
        let difference = difference(&golden, &golden.replace("line 20", "strange"));
        let expected = "@@ -20,3 +20,3 @@\n line 19\n-line 20\n+strange\n line 21\n";
        assert_eq!(difference.as_deref(), Some(expected));
    }
}
