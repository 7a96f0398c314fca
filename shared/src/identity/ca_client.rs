//! Certificates from a certificate service over gRPC: `istio.v1.auth.IstioCertificateService`.
//!
//! The key is made here, for one request, and never leaves the memory. The token is shown only to
//! a server whose chain ends in the root that the token names.
//! Source: Istio ztunnel `src/identity/caclient.rs`; design §8, Joining.

mod connect;
mod pin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use zeroize::{Zeroize as _, Zeroizing};

use super::certificate::certificates_from_pem;
use super::files::read_secret;
use super::join::JoinToken;
use super::{Authority, CertificateError, Error, SpiffeId, TrustDomain, WorkloadCertificate};
use crate::tls::Roots;

/// Istio's name for the identity that a node asks for on behalf of a pod.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// An answer is a chain and a few roots.
const LARGEST_ANSWER_BYTES: usize = 1 << 20;

/// Where the join token is.
#[derive(Debug, Clone)]
pub enum Token {
    /// In a file that only its owner may read. Read for every request, so that it can be replaced.
    File(PathBuf),
    /// In memory.
    Fixed(JoinToken),
}

/// A certificate service that is joined with a token.
pub struct CaClient {
    address: Box<str>,
    token: Token,
    trust_domain: TrustDomain,
    /// The connection, and the root it was made for.
    channel: Mutex<Option<([u8; 32], Channel)>>,
}

impl CaClient {
    /// A client of the service at `address` (`host:port`). Connects with the first request.
    ///
    /// # Errors
    /// When the token cannot be read: better known at start than with the first pod.
    pub fn new(address: &str, token: Token, trust_domain: TrustDomain) -> Result<Self, Error> {
        token.read()?;
        Ok(Self { address: address.into(), token, trust_domain, channel: Mutex::new(None) })
    }

    fn channel(&self, root: [u8; 32]) -> Channel {
        let mut channel = self.channel.lock();
        if let Some((known, channel)) = channel.as_ref()
            && *known == root
        {
            return channel.clone();
        }
        // The name is for the `:authority` header only; the connector knows the address.
        let endpoint = Endpoint::from_static("http://certificate-authority")
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .tcp_nodelay(true);
        let connector = connect::Connector::new(&self.address, root, &self.trust_domain);
        let fresh = endpoint.connect_with_connector_lazy(connector);
        *channel = Some((root, fresh.clone()));
        fresh
    }

    async fn ask(&self, id: &SpiffeId) -> Result<WorkloadCertificate, Error> {
        let unusable = |source| Error::Certificate { id: id.clone(), source };
        let token = self.token.read()?;
        let (key, csr) = key_and_request(id).map_err(unusable)?;
        let mut request = Request::new(IstioCertificateRequest {
            csr,
            // The authority's own default: it knows its limit.
            validity_duration: 0,
            metadata: Some(impersonate(id)),
        });
        request.metadata_mut().insert("authorization", bearer(&token)?);
        let mut client = IstioCertificateServiceClient::new(self.channel(token.root()))
            .max_decoding_message_size(LARGEST_ANSWER_BYTES);
        let suspicion = Suspicion { client: self };
        let answer = client.create_certificate(request).await;
        std::mem::forget(suspicion);
        let answer = answer.map_err(|status| failure(id, status))?.into_inner();
        from_answer(&answer, key).map_err(unusable)
    }
}

/// An attempt that is broken off speaks against the connection: the next one makes another.
struct Suspicion<'a> {
    client: &'a CaClient,
}

impl Drop for Suspicion<'_> {
    fn drop(&mut self) {
        *self.client.channel.lock() = None;
    }
}

impl Authority for CaClient {
    fn issue<'a>(&'a self, id: &'a SpiffeId) -> BoxFuture<'a, Result<WorkloadCertificate, Error>> {
        Box::pin(self.ask(id))
    }
}

impl Token {
    fn read(&self) -> Result<JoinToken, Error> {
        let path = match self {
            Self::Fixed(token) => return Ok(token.clone()),
            Self::File(path) => path,
        };
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        read_secret(path)
            .and_then(|text| {
                let text = std::str::from_utf8(&text).unwrap_or_default();
                text.parse().map_err(|error: super::join::Malformed| invalid(error))
            })
            .map_err(|source| Error::File { path: path.clone(), source: Arc::new(source) })
    }
}

fn bearer(token: &JoinToken) -> Result<MetadataValue<tonic::metadata::Ascii>, Error> {
    let text = Zeroizing::new(format!("Bearer {}", token.credential().bearer().as_str()));
    let value = MetadataValue::try_from(text.as_str());
    let mut value = value.map_err(|_| {
        Error::Unreachable(Arc::new(Status::internal("join token does not fit a header")))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A fresh P-256 key and a request for `id`: empty subject, one critical URI name.
fn key_and_request(id: &SpiffeId) -> Result<(PrivateKeyDer<'static>, String), CertificateError> {
    let failed = |_| CertificateError::Key(rustls::Error::General("make a key".into()));
    let mut key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(failed)?;
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    key.zeroize();
    Ok((der, csr))
}

fn impersonate(id: &SpiffeId) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(id.to_string())) };
    Struct { fields: BTreeMap::from([(IMPERSONATED_IDENTITY.to_owned(), value)]) }
}

/// The first element is the leaf, the last holds all roots, between them are intermediates.
fn from_answer(
    answer: &IstioCertificateResponse,
    key: PrivateKeyDer<'static>,
) -> Result<WorkloadCertificate, CertificateError> {
    let [chain @ .., roots] = answer.cert_chain.as_slice() else {
        return Err(CertificateError::Chain);
    };
    if chain.is_empty() {
        return Err(CertificateError::Chain);
    }
    let first = |text: &String| -> Result<CertificateDer<'static>, CertificateError> {
        let certificates = certificates_from_pem(text.as_bytes())?;
        certificates.into_iter().next().ok_or(CertificateError::Chain)
    };
    let chain = chain.iter().map(first).collect::<Result<Vec<_>, _>>()?;
    let roots = Roots::from_usable(certificates_from_pem(roots.as_bytes())?)?;
    WorkloadCertificate::new(chain, key, roots)
}

fn failure(id: &SpiffeId, status: Status) -> Error {
    match status.code() {
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition => Error::Refused { id: id.clone(), status: Arc::new(status) },
        _ => Error::Unreachable(Arc::new(status)),
    }
}
