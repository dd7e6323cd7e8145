//! The page: one file, without anything from outside, and a policy under which a browser runs its script alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// The page.
pub const PAGE: &str = include_str!("page.html");

/// The `Content-Security-Policy` of everything that is served: the page's own script and style, by their hashes, and
/// requests to where it came from.
pub static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    HeaderValue::from_str(&policy).expect("base64 and the words above are visible ASCII")
});

fn hash(element: &str) -> String {
    let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
    let content = PAGE.split(&opening).nth(1).and_then(|rest| rest.split(&closing).next()).unwrap_or_default();
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_outside() {
        for outside in ["http:", "https:", "src=", "@import", "url(", " style=", "innerHTML", "eval("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        for element in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(PAGE.contains(&format!("<{element}>")), "{element} without attributes");
        }
        assert!(!POLICY.to_str().unwrap_or_default().contains("47DEQpj8HBSa"), "the hash of nothing");
    }
}
