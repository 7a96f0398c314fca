//! `istio.v1.auth.IstioCertificateService`: from the wire to a decision and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Struct;
use prost_types::value::Kind;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use shared::identity::join::Credential;
use shared::identity::{IMPERSONATED_IDENTITY, TrustDomain};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use tracing::{error, info, warn};

use super::NodePods;
use super::csr::Csr;
use super::issue::{self, Refusal};
use super::limit::Limits;
use super::root::Root;
use super::tokens::Tokens;

/// A name in a log line is cut here; a real one is at most 530 bytes.
const LONGEST_LOGGED: usize = 600;

/// A node hears of a new pod on its own, maybe before we do. A request for a pod that is not
/// known here waits this long for the mesh to change; a third of what a node waits for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Requests that may wait so at once, over all nodes; others are refused at once, as after the
/// wait. Each change of the mesh costs a look per waiting request.
pub(super) const WAITING: usize = 64;

/// The service. One for all connections.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) root: Arc<Root>,
    pub(super) tokens: Tokens,
    pub(super) pods: Arc<dyn NodePods>,
    pub(super) trust_domain: TrustDomain,
    pub(super) leaf_ttl: Duration,
    pub(super) limits: Arc<Limits>,
    pub(super) waiting: Arc<Semaphore>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller(pub(super) SocketAddr);

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = request.extensions().get::<Caller>().map(|caller| caller.0.to_string());
        let caller = caller.unwrap_or_default();
        let Some(node) = self.authenticate(&request)? else {
            return Err(self.turn_away(&caller));
        };
        let asked = request.get_ref();
        let identity = identity(asked.metadata.as_ref());
        let name = identity.unwrap_or_default();
        let name = name.get(..LONGEST_LOGGED).unwrap_or(name);
        match self.certificate(&node, asked, identity).await? {
            Ok((issued, chain)) => {
                let (code, serial) = ("CA_ISSUED", issued.serial);
                let until = unix_seconds(issued.not_after);
                info!(code, %node, identity = name, serial, until, caller, "certificate issued");
                Ok(Response::new(IstioCertificateResponse { cert_chain: chain }))
            }
            Err(refusal) => {
                // What came in is quoted (`?`), so that it cannot forge a log line.
                let code = refusal.code();
                warn!(code, %node, identity = ?name, reason = %refusal, caller, "certificate refused");
                Err(status(&refusal))
            }
        }
    }
}

impl Service {
    /// The node whose valid token came with the request.
    fn authenticate<T>(&self, request: &Request<T>) -> Result<Option<Box<str>>, Status> {
        let credential: Option<Credential> = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .and_then(|value| value.parse().ok());
        let Some(credential) = credential else { return Ok(None) };
        let accepted = self.tokens.accept(&credential).map_err(|error| internal(&error))?;
        Ok(accepted.then(|| credential.node().into()))
    }

    fn turn_away(&self, caller: &str) -> Status {
        let refusal = match self.limits.admit_stranger(Instant::now()) {
            true => Refusal::Token,
            false => return status(&Refusal::Busy),
        };
        warn!(code = refusal.code(), caller, "certificate refused");
        status(&refusal)
    }

    async fn certificate(
        &self,
        node: &str,
        asked: &IstioCertificateRequest,
        identity: Option<&str>,
    ) -> Result<Result<(issue::Issued, Vec<String>), Refusal>, Status> {
        if !self.limits.admit(node, Instant::now()) {
            return Ok(Err(Refusal::Busy));
        }
        let lifetime_seconds = asked.validity_duration;
        let request = issue::Request { node, csr: &asked.csr, identity, lifetime_seconds };
        let (csr, lifetime) = match self.judge(request).await {
            Ok(judged) => judged,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let issued =
            issue::certify(&self.root, &csr, lifetime).map_err(|error| internal(&error))?;
        let chain = vec![issued.pem.clone(), self.root.pem().to_owned()];
        Ok(Ok((issued, chain)))
    }

    async fn judge(&self, request: issue::Request<'_>) -> Result<(Csr, Duration), Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let mut changes = self.pods.changes();
        let mut place = None;
        loop {
            if let Some(changes) = &mut changes {
                changes.mark_unchanged();
            }
            let judged = issue::judge(request, &*self.pods, &self.trust_domain, self.leaf_ttl);
            let (Err(Refusal::Pod(_)), Some(changes)) = (&judged, &mut changes) else {
                return judged;
            };
            place = place.or_else(|| self.waiting.try_acquire().ok());
            if place.is_none() {
                return judged;
            }
            // Cancel safety: the receiver remembers what it has seen.
            match timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return judged,
            }
        }
    }
}

fn identity(metadata: Option<&Struct>) -> Option<&str> {
    match metadata?.fields.get(IMPERSONATED_IDENTITY)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn status(refusal: &Refusal) -> Status {
    let text = format!("{}: {refusal}", refusal.code());
    match refusal {
        Refusal::Token => Status::unauthenticated(text),
        Refusal::Busy => Status::resource_exhausted(text),
        Refusal::Csr(_) | Refusal::Metadata | Refusal::Lifetime(_) | Refusal::Mismatch { .. } => {
            Status::invalid_argument(text)
        }
        Refusal::TrustDomain(_) | Refusal::Pod(_) => Status::permission_denied(text),
    }
}

fn internal(error: &super::Error) -> Status {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    error!(code = "CA_INTERNAL", %error, source, "cannot answer requests");
    Status::internal("CA_INTERNAL: see the log of the authority")
}

/// Seconds since 1970: sortable, and the same everywhere.
fn unix_seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
