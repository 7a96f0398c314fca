//! Mutual TLS of the roles themselves: what applications do that have no mesh.
//! TLS 1.3 alone, AES-256-GCM before AES-128-GCM, a full handshake for every connection.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The name that the certificates of servers carry besides their identity.
const SERVER_NAME: &str = "server";

/// Where a role finds its certificates, if it is to use TLS.
#[derive(Clone, Debug, Default, clap::Args)]
// Flattened into the arguments of roles, whose group already has this type's name.
#[group(skip)]
pub(super) struct Args {
    /// Speak mutual TLS with the files root-cert.pem, cert-chain.pem and key.pem of this folder.
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// Bytes both ways, with or without TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The stream of a role.
pub(super) type Stream = Box<dyn Duplex>;

impl Args {
    /// What a client uses.
    pub(super) fn client(&self) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        let client = |dir: &PathBuf| {
            let Files { roots, chain, key } = Files::read(dir)?;
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&version::TLS13])?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)?;
            config.resumption = rustls::client::Resumption::disabled();
            Ok(Arc::new(config))
        };
        self.tls.as_ref().map(client).transpose()
    }

    /// What a server uses.
    pub(super) fn server(&self) -> anyhow::Result<Option<TlsAcceptor>> {
        let server = |dir: &PathBuf| {
            let Files { roots, chain, key } = Files::read(dir)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&version::TLS13])?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)?;
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok(TlsAcceptor::from(Arc::new(config)))
        };
        self.tls.as_ref().map(server).transpose()
    }
}

/// Connects, with TLS if there is a configuration for it.
pub(super) async fn connect(
    target: &str,
    config: Option<&Arc<ClientConfig>>,
) -> io::Result<Stream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(match config {
        Some(config) => {
            let connector = TlsConnector::from(Arc::clone(config));
            Box::new(connector.connect(server_name(), stream).await?)
        }
        None => Box::new(stream),
    })
}

/// Whom every client expects.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("a legal name")
}

struct Files {
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Files {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&file("root-cert.pem")?) {
            roots.add(root?)?;
        }
        let chain = file("cert-chain.pem")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&file("key.pem")?)?;
        Ok(Self { roots, chain, key })
    }
}

fn provider() -> Arc<CryptoProvider> {
    let suites =
        vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites: suites, ..default_provider() })
}
