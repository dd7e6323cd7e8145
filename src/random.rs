//! The only source of randomness. Everything else is deterministic, so that a test can repeat it.

#![expect(clippy::disallowed_methods, reason = "the one home of randomness")]

/// A random id: 16 bytes as 32 hexadecimal digits.
pub fn random_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A random value between half of `whole` and `whole`: enough spread that waiters part, and never no wait at all.
pub fn jitter(whole: f64) -> f64 {
    // The low 62 bits of a version 4 UUID are random; 53 of them fill a double.
    const BITS: u32 = 53;
    let random = uuid::Uuid::new_v4().as_u128() & ((1 << BITS) - 1);
    let unit = random as f64 / (1_u64 << BITS) as f64;
    whole * (0.5 + unit / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_differ() {
        let id = random_id();
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, random_id());
    }

    #[test]
    fn jitter_stays_in_its_half_and_spreads() {
        let values: Vec<f64> = (0..1000).map(|_| jitter(10.0)).collect();
        assert!(values.iter().all(|value| (5.0..10.0).contains(value)));
        assert!(values.iter().any(|value| *value < 6.0) && values.iter().any(|value| *value > 9.0));
    }
}
