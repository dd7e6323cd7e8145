//! What a client computes in a SCRAM log-in: SCRAM-SHA-256 (RFC 7677) and SCRAM-SHA-1 (RFC 5802) with MongoDB's way of
//! hashing a password first
//! (<https://github.com/mongodb/specifications/blob/master/source/auth/auth.md#scram-sha-1>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Fewer rounds than this are refused, as the driver does: a server that asks for few makes a password easy to guess.
const FEWEST_ITERATIONS: u32 = 4096;

/// "No channel binding", which begins the first message and is repeated in the last.
const GS2_HEADER: &str = "n,,";

/// The hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl Mechanism {
    /// Its name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        const ANY_KEY: &str = "HMAC takes a key of any length";
        match self {
            Self::Sha1 => {
                Hmac::<Sha1>::new_from_slice(key).expect(ANY_KEY).chain_update(text).finalize().into_bytes().to_vec()
            }
            Self::Sha256 => {
                Hmac::<Sha256>::new_from_slice(key).expect(ANY_KEY).chain_update(text).finalize().into_bytes().to_vec()
            }
        }
    }

    fn hash(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(text).to_vec(),
            Self::Sha256 => Sha256::digest(text).to_vec(),
        }
    }

    fn salted_password(self, user: &str, password: &str, salt: &[u8], iterations: u32) -> Result<Vec<u8>, String> {
        const ANY_KEY: &str = "HMAC takes a key of any length";
        match self {
            Self::Sha1 => {
                let mut password_hash = String::new();
                for byte in Md5::digest(format!("{user}:mongo:{password}")) {
                    write!(password_hash, "{byte:02x}").expect("a String takes what it is given");
                }
                let mut salted = vec![0; 20];
                pbkdf2::pbkdf2::<Hmac<Sha1>>(password_hash.as_bytes(), salt, iterations, &mut salted).expect(ANY_KEY);
                Ok(salted)
            }
            Self::Sha256 => {
                let password = stringprep::saslprep(password)
                    .map_err(|_| "the password has characters that SCRAM-SHA-256 does not take".to_owned())?;
                let mut salted = vec![0; 32];
                pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, iterations, &mut salted).expect(ANY_KEY);
                Ok(salted)
            }
        }
    }
}

/// The client's first message.
#[derive(Debug)]
pub struct First {
    mechanism: Mechanism,
    user: String,
    nonce: String,
}

impl First {
    /// For this user; the nonce must be a random text without commas.
    pub fn new(mechanism: Mechanism, user: &str, nonce: String) -> Self {
        Self { mechanism, user: user.to_owned(), nonce }
    }

    /// What is sent.
    pub fn message(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare())
    }

    fn bare(&self) -> String {
        format!("n={},r={}", self.user.replace('=', "=3D").replace(',', "=2C"), self.nonce)
    }

    /// The client's last message, out of the server's first.
    pub fn last(&self, password: &str, server_first: &str) -> Result<Last, String> {
        let nonsense = || "the server's part of the log-in makes no sense".to_owned();
        let mut parts = server_first.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).ok_or_else(nonsense);
        let (nonce, salt, iterations) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(nonsense());
        }
        let salt = BASE64.decode(salt).map_err(|_| nonsense())?;
        let iterations: u32 = iterations.parse().map_err(|_| nonsense())?;
        if iterations < FEWEST_ITERATIONS {
            return Err(format!("the server hashes passwords {iterations} times, fewer than {FEWEST_ITERATIONS}"));
        }
        let mechanism = self.mechanism;
        let salted = mechanism.salted_password(&self.user, password, &salt, iterations)?;
        let client_key = mechanism.hmac(&salted, b"Client Key");
        let without_proof = format!("c={},r={nonce}", BASE64.encode(GS2_HEADER));
        let signed = format!("{},{server_first},{without_proof}", self.bare());
        let signature = mechanism.hmac(&mechanism.hash(&client_key), signed.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
        let server_key = mechanism.hmac(&salted, b"Server Key");
        Ok(Last {
            message: format!("{without_proof},p={}", BASE64.encode(proof)),
            server_signature: mechanism.hmac(&server_key, signed.as_bytes()),
        })
    }
}

/// The client's last message.
#[derive(Debug)]
pub struct Last {
    /// What is sent.
    pub message: String,
    server_signature: Vec<u8>,
}

impl Last {
    /// Whether the server's last message shows that it knows the password, too.
    pub fn is_answered_by(&self, server_last: &str) -> bool {
        let signature = server_last.split(',').next().and_then(|part| part.strip_prefix("v="));
        // No secret is compared: whoever could measure the time has seen both already.
        signature.and_then(|text| BASE64.decode(text).ok()).is_some_and(|found| found == self.server_signature)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let first = First::new(Mechanism::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = first.last("pencil", server).unwrap();
        assert_eq!(
            last.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(last.is_answered_by("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!last.is_answered_by("v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        assert!(!last.is_answered_by("e=other-error"));
    }

    /// The example of the driver specification.
    #[test]
    fn the_example_of_the_specification() {
        let first = First::new(Mechanism::Sha1, "user", "fyko+d2lbbFgONRv9qkxdawL".to_owned());
        let server = "r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,s=rQ9ZY3MntBeuP3E1TDVC4w==,i=10000";
        let last = first.last("pencil", server).unwrap();
        assert_eq!(
            last.message,
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,p=MC2T8BvbmWRckDw8oWl5IVghwCY="
        );
        assert!(last.is_answered_by("v=UMWeI25JD1yNYZRMpZ4VHvhZ9e0="));
    }

    #[test]
    fn a_server_that_knows_nothing_is_refused() {
        let first = First::new(Mechanism::Sha256, "a,b=c", "nonce".to_owned());
        assert_eq!(first.message(), "n,,n=a=2Cb=3Dc,r=nonce");
        for server in
            ["", "r=nonce,s=QQ==,i=4096", "r=other1,s=QQ==,i=4096", "r=nonce1,s=!,i=4096", "r=nonce1,s=QQ==,i=1"]
        {
            assert!(first.last("p", server).is_err(), "{server}");
        }
    }
}
