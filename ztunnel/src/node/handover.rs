//! What same-node hand-over needs: which pods are here, and who has proved what to whom.
//!
//! Invariants: a proof holds for exactly the two certificates that it was made of, and only as long as
//! both count; a new certificate or other roots are looked at again.
//! Not here: when a connection is handed over (`outbound::handover`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use prometheus::IntCounter;
use shared::identity::{CertStore, SpiffeId, WorkloadCertificate};
use shared::tls::{self, PeerId};

use crate::pods::Served;

/// Hand-over between the pods of this process, where it is switched on.
#[derive(Debug, Clone)]
pub struct Handover {
    /// The pods.
    pub served: Served,
    /// Connections that were handed over.
    pub connections: IntCounter,
}

impl Handover {
    /// Hand-over between the pods that are `served`.
    pub fn new(served: Served) -> Self {
        let connections = IntCounter::new(
            "culvert_handovers_total",
            "Connections between two pods of this node that went without a tunnel",
        );
        Self { served, connections: connections.expect("the metric has a legal name") }
    }
}

/// Proofs kept per worker. Each is a few hundred bytes; beyond this all are made afresh.
const KEPT: usize = 1024;

/// Who calls whom, and who may answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    client: SpiffeId,
    server: SpiffeId,
    expected: Box<[SpiffeId]>,
}

struct Proof {
    client: Arc<WorkloadCertificate>,
    server: Arc<WorkloadCertificate>,
    /// None: one of them does not accept the other.
    peer: Option<PeerId>,
}

/// What handshakes between pods of this process would prove, looked at once per pair of certificates.
#[derive(Default)]
pub struct Proofs(RefCell<HashMap<Key, Proof>>);

impl Proofs {
    /// Who `client` is to `server`, as a handshake now would prove it. None when there would be no
    /// handshake: a certificate is not in hand or does not count, or one side refuses the other.
    pub fn prove(
        &self,
        certificates: &CertStore,
        (client, server): (&SpiffeId, &SpiffeId),
        expected: &[SpiffeId],
    ) -> Option<PeerId> {
        let (ours, theirs) = (certificates.latest(client)?, certificates.latest(server)?);
        let key = Key { client: client.clone(), server: server.clone(), expected: expected.into() };
        let mut proofs = self.0.borrow_mut();
        if let Some(proof) = proofs.get(&key)
            && Arc::ptr_eq(&proof.client, &ours)
            && Arc::ptr_eq(&proof.server, &theirs)
        {
            return proof.peer.clone();
        }
        let peer = tls::meet(&ours, &theirs, expected)
            .inspect_err(|error| tracing::debug!(%client, %server, %error, "no hand-over"))
            .ok();
        if proofs.len() >= KEPT {
            proofs.clear();
        }
        proofs.insert(key, Proof { client: ours, server: theirs, peer: peer.clone() });
        peer
    }
}
