//! Bad requests against a running `ztunnel ca`, over gRPC by hand: each is refused by its name, here
//! and in the authority's log, and costs nobody else anything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use harness::pod::PodSpec;
use harness::process::Running;
use http::Request;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::istio::v1::auth::IstioCertificateRequest;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shared::identity::IMPERSONATED_IDENTITY;
use shared::tls::{provider, server_name, tls13};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use super::log::Log;
use super::suite::cases;
use super::world::{World, dial};

cases! {
    "authority::bad_requests_are_refused_by_name_and_the_next_good_one_is_answered":
        [] => bad_requests;
}

const SOON: Duration = Duration::from_secs(30);
const CREATE: &str = "https://authority/istio.v1.auth.IstioCertificateService/CreateCertificate";
const OWN: &str = "spiffe://cluster.local/ns/default/sa/client";

/// One connection to the authority.
struct Caller {
    sender: h2::client::SendRequest<Bytes>,
    token: String,
}

/// What the authority is asked.
struct Asked {
    csr: String,
    identity: Option<&'static str>,
    seconds: i64,
}

/// The code and the words of a gRPC answer (gRPC over HTTP/2, "Responses").
#[derive(Debug)]
struct Status {
    code: u32,
    message: String,
}

impl Caller {
    async fn connect(world: &World, token: &str) -> anyhow::Result<Self> {
        let to = std::net::SocketAddr::new(world.near.ip(), 15012);
        let stream = dial(world.near.netns(), to).await?;
        let builder = ClientConfig::builder_with_provider(provider::provider());
        let mut config = tls13(builder)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TlsConnector::from(Arc::new(config)).connect(server_name(), stream).await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        spawn_local(connection);
        // The last part names the root and is not for the authority.
        let (token, _) = token.trim().rsplit_once(':').context("no token")?;
        Ok(Self { sender, token: token.to_owned() })
    }

    async fn ask(&self, asked: Asked) -> anyhow::Result<Status> {
        let metadata = asked.identity.map(|identity| {
            let value = Value { kind: Some(Kind::StringValue(identity.to_owned())) };
            Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() }
        });
        let (csr, validity_duration) = (asked.csr, asked.seconds);
        let message = IstioCertificateRequest { csr, validity_duration, metadata }.encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(&message);
        let request = Request::post(CREATE)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token))
            .body(())?;
        let (response, mut send) =
            self.sender.clone().ready().await?.send_request(request, false)?;
        send.send_data(body.freeze(), true)?;
        let (head, mut body) = response.await?.into_parts();
        while let Some(piece) = body.data().await {
            body.flow_control().release_capacity(piece?.len())?;
        }
        let headers = body.trailers().await?.unwrap_or(head.headers);
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let code = text("grpc-status").context("no status")?.parse()?;
        Ok(Status { code, message: text("grpc-message").unwrap_or_default().to_owned() })
    }
}

fn csr(change: impl FnOnce(&mut CertificateParams)) -> anyhow::Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(OWN)?];
    change(&mut params);
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(text.try_into()?))
}

/// Requests that are refused: why, and with which code of gRPC.
fn bad() -> anyhow::Result<Vec<(&'static str, u32, Asked)>> {
    const FAR: &str = "spiffe://cluster.local/ns/default/sa/far";
    const FOREIGN: &str = "spiffe://elsewhere/ns/default/sa/client";
    let (far, foreign) = (uri(FAR)?, uri(FOREIGN)?);
    let (second, dns) = (far.clone(), SanType::DnsName("client.default".try_into()?));
    let asked = |csr, identity, seconds| Asked { csr, identity: Some(identity), seconds };
    let power = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let two = csr(|params| params.subject_alt_names.push(second))?;
    let named = csr(|params| params.subject_alt_names.push(dns))?;
    let of_far = csr(|params| params.subject_alt_names = vec![far])?;
    let of_foreign = csr(|params| params.subject_alt_names = vec![foreign])?;
    Ok(vec![
        ("CA_IDENTITY_MISMATCH", 3, asked(csr(|_| ())?, FAR, 0)),
        ("CA_METADATA", 3, Asked { csr: csr(|_| ())?, identity: None, seconds: 0 }),
        ("CA_CSR_NAME_COUNT", 3, asked(two, OWN, 0)),
        ("CA_CSR_NAME_KIND", 3, asked(named, OWN, 0)),
        ("CA_CSR_AUTHORITY", 3, asked(csr(power)?, OWN, 0)),
        ("CA_CSR_UNREADABLE", 3, asked("rubbish".to_owned(), OWN, 0)),
        ("CA_POD_NOT_ON_NODE", 7, asked(of_far, FAR, 0)),
        ("CA_TRUST_DOMAIN", 7, asked(of_foreign, FOREIGN, 0)),
        ("CA_LIFETIME", 3, asked(csr(|_| ())?, OWN, 3601)),
    ])
}

async fn bad_requests(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let _pods = (world.pod(PodSpec::new("client"))?, world.far_pod(PodSpec::new("far"))?);
    let state = world.cluster.dir().join("ca");
    let token = world.near.role("ztunnel").args(["ca", "token", "near", "--state"]);
    let token = token.arg(&state).success(SOON)?;
    let program = world.near.role("ztunnel").args(["ca", "--leaf-ttl", "1h"]);
    let program = program.args(["--listen", "0.0.0.0:15012", "--mesh"]);
    let program = program.arg(world.cluster.mesh().path()).arg("--state").arg(&state);
    let mut authority: Running = program.start()?;
    authority.line_with("certificate authority ready", SOON)?;
    let caller = Caller::connect(&world, &token).await?;
    for (name, code, asked) in bad()? {
        let status = caller.ask(asked).await.context(name)?;
        ensure!(status.code == code, "{name}: {status:?}");
        ensure!(status.message.starts_with(&format!("{name}:")), "{name}: {status:?}");
        authority.line_with(&format!("code=\"{name}\""), SOON)?;
        // The same connection, and everybody else's, is served as before.
        let good = Asked { csr: csr(|_| ())?, identity: Some(OWN), seconds: 60 };
        let status = caller.ask(good).await?;
        ensure!(status.code == 0, "after {name}: {status:?}");
    }
    let mut stranger = Caller::connect(&world, &token).await?;
    stranger.token = stranger.token.replace("near", "far");
    let good = Asked { csr: csr(|_| ())?, identity: Some(OWN), seconds: 60 };
    let status = stranger.ask(good).await?;
    ensure!(status.code == 16 && status.message.starts_with("CA_TOKEN:"), "{status:?}");
    authority.line_with("code=\"CA_TOKEN\"", SOON)?;
    Ok(())
}

/// This caller is not here to be convinced.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::provider().signature_verification_algorithms.supported_schemes()
    }
}
