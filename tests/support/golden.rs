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
    let golden = fs::read_to_string(&file)?;
    if golden.trim_end() == text {
        return Ok(());
    }
    let difference = TextDiff::from_lines(golden.trim_end(), text.as_str());
    Err(format!(
        "{} differs; UPDATE_GOLDEN=1 rewrites it\n{}",
        file.display(),
        difference.unified_diff().context_radius(1)
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_a_golden_document_is_named() -> Result<(), Failure> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check.json");
        let mut document: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
        compare_golden("check.json", &document)?;
        document["status"] = "strange".into();
        let error = compare_golden("check.json", &document).err().ok_or("they differ")?.to_string();
        assert!(error.contains("\n+  \"status\": \"strange\",\n") && error.lines().count() < 10, "{error}");
        Ok(())
    }
}
