//! Whom an encrypted connection trusts, and how it shows who we are.

use bb8_redis::redis::{Client, ConnectionInfo, RedisResult};
#[cfg(feature = "redis-tls")]
use bb8_redis::redis::{ClientTlsConfig, ConnectionAddr, TlsCertificates};
#[cfg(feature = "redis-tls")]
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

#[cfg(feature = "redis-tls")]
use crate::error::ConfigError;

#[cfg(feature = "redis-tls")]
type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Certificates in PEM. The default trusts whom the system trusts, and shows nothing.
#[derive(Clone, Default)]
pub(super) struct Tls {
    #[cfg(feature = "redis-tls")]
    pub(super) root: Option<Vec<u8>>,
    #[cfg(feature = "redis-tls")]
    pub(super) client: Option<ClientTlsConfig>,
}

impl Tls {
    /// A client for this server.
    pub(super) fn open(&self, info: ConnectionInfo) -> RedisResult<Client> {
        #[cfg(feature = "redis-tls")]
        if let (ConnectionAddr::TcpTls { .. }, Some(certificates)) =
            (info.addr(), self.certificates())
        {
            return Client::build_with_tls(info, certificates);
        }
        Client::open(info)
    }

    /// Whether what was given can be read, and is of use.
    #[cfg(feature = "redis-tls")]
    pub(super) fn check(&self, encrypted: bool) -> Result<(), ConfigError> {
        if encrypted {
            install_provider();
        }
        let unused = |option| Err(ConfigError::new(option, "needs a URL of rediss://"));
        match (&self.root, &self.client) {
            (Some(_), _) if !encrypted => return unused("root_certificates"),
            (_, Some(_)) if !encrypted => return unused("client_certificate"),
            _ => {}
        }
        let certificates = |pem: &[u8]| -> Result<(), Unreadable> {
            let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            match certificates?.is_empty() {
                true => Err("there is none".into()),
                false => Ok(()),
            }
        };
        if let Some(root) = &self.root {
            certificates(root).map_err(|error| {
                let reason = "must be certificates in PEM";
                ConfigError::new("root_certificates", reason).with_source(error)
            })?;
        }
        let Some(client) = &self.client else {
            return Ok(());
        };
        let key = PrivateKeyDer::from_pem_slice(&client.client_key);
        certificates(&client.client_cert)
            .and(key.map(drop).map_err(Unreadable::from))
            .map_err(|error| {
                let reason = "must be a certificate and its private key in PEM";
                ConfigError::new("client_certificate", reason).with_source(error)
            })
    }

    #[cfg(feature = "redis-tls")]
    pub(super) fn certificates(&self) -> Option<TlsCertificates> {
        let given = self.root.is_some() || self.client.is_some();
        given.then(|| TlsCertificates {
            client_tls: self.client.clone(),
            root_cert: self.root.clone(),
        })
    }
}

/// Without a provider of its own a process in which several are built in could not connect: rustls
/// would not know which to take.
#[cfg(feature = "redis-tls")]
fn install_provider() {
    use rustls::crypto::{CryptoProvider, ring};
    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster: then there is one, too.
        let _ = ring::default_provider().install_default();
    }
}
