//! Certificates of an authority that only one test knows.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use super::servers::Failure;

/// An authority's certificate, and those that it has signed, as PEM files.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's.
    pub authority: PathBuf,
    /// The one of a server on this machine, with its key.
    pub server: PathBuf,
    /// A client's, with its key.
    pub client: PathBuf,
}

impl Certificates {
    /// The subject of the client's certificate as a server writes it: the name of a user in `$external`.
    pub const CLIENT: &'static str = "CN=mongoferry,O=clients";

    /// Makes them in this folder.
    pub fn make(folder: &Path) -> Result<Self, Failure> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        let authority = parameters.self_signed(&key)?;
        let issuer = Issuer::new(parameters, key);
        let write = |name: &str, text: String| -> Result<PathBuf, Failure> {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let signed = |organization: &str, name: &str, purpose| -> Result<String, Failure> {
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
            parameters.distinguished_name = DistinguishedName::new();
            parameters.distinguished_name.push(DnType::OrganizationName, organization);
            parameters.distinguished_name.push(DnType::CommonName, name);
            parameters.extended_key_usages = vec![purpose];
            Ok(parameters.signed_by(&key, &issuer)?.pem() + &key.serialize_pem())
        };
        Ok(Self {
            authority: write("authority.pem", authority.pem())?,
            server: write("server.pem", signed("servers", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth)?)?,
            client: write("client.pem", signed("clients", "mongoferry", ExtendedKeyUsagePurpose::ClientAuth)?)?,
        })
    }
}
