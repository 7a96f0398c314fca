//! Peers of the proxy: callers with certificates of any kind, and what may stand where another
//! ztunnel should. They speak through `rustls` and `h2`, not through the proxy's own code.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use harness::pod::Pod;
use http::{HeaderMap, Method, Request, StatusCode};
use rustls::ClientConfig;
use shared::headers;
use shared::identity::{SpiffeId, WorkloadCertificate};
use shared::tls::server_name;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::scene::Scene;
use super::world::{connect, identity, listen};

/// The port of tunnels.
pub(crate) const TUNNEL: u16 = 15008;

pub(crate) type ClientStream = client::TlsStream<TcpStream>;
pub(crate) type ServerStream = server::TlsStream<TcpStream>;

/// What a proxy answered to a CONNECT.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) cause: Option<String>,
}

impl Scene {
    /// TCP to the server's tunnel port, past every proxy but the server's.
    pub(crate) async fn reach(&self) -> io::Result<TcpStream> {
        connect(&self.outsider, SocketAddr::new(self.server.ip(), TUNNEL)).await
    }

    /// A certificate of the client, as a stolen key would give it.
    pub(crate) fn certificate(&self) -> anyhow::Result<WorkloadCertificate> {
        Ok(self.world.ca.issue(&identity(&self.client)?))
    }

    /// How somebody with `certificate` calls the server.
    pub(crate) fn calling(
        &self,
        certificate: &WorkloadCertificate,
    ) -> anyhow::Result<Arc<ClientConfig>> {
        Ok(certificate.client_config(&[identity(&self.server)?]))
    }

    /// TLS to the server with a good certificate.
    pub(crate) async fn shake(&self) -> anyhow::Result<ClientStream> {
        let config = self.calling(&self.certificate()?)?;
        self.shake_with(config).await
    }

    /// TLS to the server as `config` says. What the server thinks of a certificate is only known
    /// once something is read.
    pub(crate) async fn shake_with(
        &self,
        config: Arc<ClientConfig>,
    ) -> anyhow::Result<ClientStream> {
        let stream = self.reach().await?;
        Ok(TlsConnector::from(config).connect(server_name(), stream).await?)
    }

    /// Asks the server's proxy for a tunnel to `authority`.
    pub(crate) async fn ask(&self, authority: &str) -> anyhow::Result<Answer> {
        ask(self.shake().await?, authority, HeaderMap::new()).await
    }
}

/// Asks for a tunnel on a connection of its own.
pub(crate) async fn ask(
    stream: ClientStream,
    authority: &str,
    headers: HeaderMap,
) -> anyhow::Result<Answer> {
    let (sender, connection) = h2::client::handshake(stream).await?;
    let running = spawn_local(connection);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().context("no URI")?;
    *request.headers_mut() = headers;
    let (response, _body) = sender.ready().await?.send_request(request, false)?;
    let response = response.await?;
    running.abort();
    let cause = headers::cause(response.headers()).map(ToOwned::to_owned);
    Ok(Answer { status: response.status(), cause })
}

/// Serves the tunnel port of `pod` by hand.
pub(crate) fn stand_in<F>(pod: &Pod, serve: F) -> io::Result<()>
where
    F: AsyncFn(TcpStream) -> anyhow::Result<()> + 'static,
{
    let listener = listen(pod, TUNNEL)?;
    let serve = std::rc::Rc::new(serve);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = std::rc::Rc::clone(&serve);
            spawn_local(async move {
                // What goes wrong here is what the test is about; it looks at the other side.
                let _ = serve(stream).await;
            });
        }
    });
    Ok(())
}

/// The server's side of TLS, as `certificate` allows.
pub(crate) async fn accept(
    certificate: &WorkloadCertificate,
    stream: TcpStream,
) -> io::Result<ServerStream> {
    TlsAcceptor::from(certificate.server_config()).accept(stream).await
}

/// Nobody's certificate: a client that keeps its own to itself.
#[derive(Debug)]
pub(crate) struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// An identity in the usual form.
pub(crate) fn spiffe(text: &str) -> anyhow::Result<SpiffeId> {
    Ok(text.parse()?)
}
