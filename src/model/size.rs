//! Sizes in bytes as people write them: `20MB` is 20 × 1000², `64MiB` is 64 × 1024², `1.5GB` has a fraction, and a
//! number without a unit counts bytes. Capitals do not matter.

use bytesize::ByteSize;

/// The units that a size is shown in, the largest first.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
];

/// Bytes, from a text.
///
/// # Errors
/// What is wrong with it, and how to write it.
pub fn parse(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.0).map_err(|_| "not a size; write it like 500KB, 20MB or 64MiB".to_owned())
}

/// A size so that [`parse`] reads the same again: in the largest unit that it is a multiple of.
pub fn show(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// A size for people, rounded: `1.4 GB`.
pub fn about(bytes: u64) -> String {
    let unit =
        [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")].into_iter().find(|(factor, _)| bytes as f64 >= *factor);
    unit.map_or_else(|| format!("{bytes} B"), |(factor, name)| format!("{:.1} {name}", bytes as f64 / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("20MB", 20_000_000),
            ("20mb", 20_000_000),
            ("20 MB", 20_000_000),
            ("20M", 20_000_000),
            ("64MiB", 64 << 20),
            ("1.5GB", 1_500_000_000),
            ("500KB", 500_000),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-5MB", "5MB/s", "5 parsecs", "NaN", "inf", "1e6", "1.2.3MB", "０MB", "none"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_rounded() {
        for (bytes, text) in [(999, "999 B"), (1_000, "1.0 KB"), (1_449_000_000, "1.4 GB"), (3 << 40, "3.3 TB")] {
            assert_eq!(about(bytes), text);
        }
    }

    #[test]
    fn sizes_as_they_are_shown() {
        for (bytes, text) in [(20_000_000, "20MB"), (64 << 20, "64MiB"), (1_500_000_000, "1500MB"), (1234, "1234B")] {
            assert_eq!(show(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(bytes in any::<u64>(), zeros in 0..12_u32) {
            let bytes = bytes / 10_u64.pow(zeros) * 10_u64.pow(zeros);
            prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
    }
}
