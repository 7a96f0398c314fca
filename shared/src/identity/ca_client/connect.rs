//! How the gRPC client reaches the authority: TCP, then TLS with a pinned root.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pin::{PinnedRoot, Refusal};
use crate::identity::TrustDomain;
use crate::tls::{self, provider};

/// Connects to one address, whatever URI it is asked for.
#[derive(Clone)]
pub(super) struct Connector {
    address: Box<str>,
    tls: TlsConnector,
}

impl Connector {
    pub(super) fn new(address: &str, root: [u8; 32], trust_domain: &TrustDomain) -> Self {
        let verifier = Arc::new(PinnedRoot::new(root, trust_domain));
        let builder = ClientConfig::builder_with_provider(provider::provider());
        let mut config = tls::tls13(builder)
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![tls::ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Self { address: address.into(), tls: TlsConnector::from(Arc::new(config)) }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let socket = TcpStream::connect(&*address).await?;
            socket.set_nodelay(true)?;
            let shaken = tls.connect(tls::server_name(), socket).await;
            shaken.map(TokioIo::new).map_err(|error| match Refusal::behind(&error) {
                Some(refusal) => io::Error::new(error.kind(), refusal),
                None => error,
            })
        })
    }
}
