//! Whether policies allow a request or a connection, at its start and as long as it lasts.
//!
//! Invariants: what is under way is decided again in the turn in which its worker learns of a changed
//! policy, with the facts of its start; exactly what is now denied is told. What ends at once is never
//! registered.
//! Source: spec L7 §4.1, §4.2; design D3.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri};
use shared::authz::{self, Denial, Facts, Guarded, HttpFacts, Inside, Permit, Policy};
use shared::mesh::Mesh;
use slab::Slab;

use crate::metrics;
use crate::node::OnWorker;
use crate::outcome::Outcome;
use crate::request::Failure;
use crate::tunnel::{Client, Target};

/// What decides, besides the client.
enum Asked {
    /// Bytes, and the name that TLS inside asks for.
    Bytes(Option<Box<str>>),
    /// A request.
    Http(Box<Request>),
}

struct Request {
    method: Method,
    uri: Uri,
    host: HeaderValue,
    /// Kept only where policies ask for headers: then they are compared as they were.
    headers: Option<HeaderMap>,
}

/// A permit under watch, as long as this lives.
#[must_use = "the permit is watched only while this is held"]
pub(crate) struct Watch {
    client: Rc<Client>,
    asked: Asked,
    /// The policies of the last decision.
    decided: u64,
    /// Where the table has our waker.
    slot: Option<usize>,
}

/// Those of a worker who wait for a change of policies.
#[derive(Default)]
pub struct Table {
    policies: Cell<u64>,
    waiting: RefCell<Slab<Waker>>,
}

impl Table {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Decides over a request, before anything of it was changed but its path made normal.
///
/// # Errors
/// The reason against it.
pub(crate) fn admit_request(
    client: &Rc<Client>,
    mesh: &Mesh,
    parts: &Parts,
) -> Result<(Permit, Watch), Denial> {
    let host = parts.headers.get(HOST).cloned();
    let host = host.unwrap_or_else(|| HeaderValue::from_static(""));
    let headers = policies(client, mesh).any(asks_for_headers);
    let request = Request {
        method: parts.method.clone(),
        uri: parts.uri.clone(),
        host,
        headers: headers.then(|| parts.headers.clone()),
    };
    admit(client, mesh, Asked::Http(Box::new(request)))
}

/// Decides over a connection that is not HTTP.
///
/// # Errors
/// The reason against it.
pub(crate) fn admit_bytes(
    client: &Rc<Client>,
    mesh: &Mesh,
    server_name: Option<&str>,
) -> Result<(Permit, Watch), Denial> {
    admit(client, mesh, Asked::Bytes(server_name.map(Into::into)))
}

fn admit(client: &Rc<Client>, mesh: &Mesh, asked: Asked) -> Result<(Permit, Watch), Denial> {
    let decided = mesh.policy_generation();
    let watch = Watch { client: Rc::clone(client), asked, decided, slot: None };
    let permit = watch.decide(mesh)?;
    if tracing::enabled!(tracing::Level::DEBUG) {
        watch.with_facts(|facts| {
            for trial in authz::trials(mesh, facts) {
                tracing::debug!(src = %client.address, ?trial, "policy on trial");
            }
        });
    }
    Ok((permit, watch))
}

fn policies<'a>(client: &'a Client, mesh: &'a Mesh) -> impl Iterator<Item = &'a Policy> {
    let service = client.target.service().map(|service| &service.key);
    mesh.policies_behind(&client.worker.node.gateway, service).map(|policy| &**policy)
}

fn asks_for_headers(policy: &Policy) -> bool {
    let rules = policy.groups.iter().flat_map(|group| &group.rules);
    rules
        .flat_map(|rule| &rule.matches)
        .any(|one| one.inside.as_ref().is_some_and(|inside| inside.header.is_some()))
}

impl Watch {
    fn decide(&self, mesh: &Mesh) -> Result<Permit, Denial> {
        self.with_facts(|facts| authz::decide(mesh, facts))
    }

    /// The policies that mark it for the log; none mostly.
    pub(crate) fn audits(&self, mesh: &Mesh) -> Option<Box<str>> {
        self.with_facts(|facts| {
            let mut keys: Vec<_> = authz::audits(mesh, facts).map(ToString::to_string).collect();
            keys.dedup();
            (!keys.is_empty()).then(|| keys.join(",").into())
        })
    }

    fn with_facts<T>(&self, use_them: impl FnOnce(&Facts<'_>) -> T) -> T {
        let client = &*self.client;
        let inside = |inside| Facts {
            guarded: Guarded::Behind {
                gateway: &client.worker.node.gateway,
                service: client.target.service().map(|service| &service.key),
            },
            peer: Some(client.peer.id()),
            source_ip: client.address.ip(),
            destination_addr: dialled(client),
            inside,
        };
        match &self.asked {
            Asked::Bytes(name) => use_them(&inside(Inside::Bytes { server_name: name.as_deref() })),
            Asked::Http(request) => {
                let Request { method, uri, host, headers } = &**request;
                // What is no text was refused before.
                let host = host.to_str().unwrap_or_default();
                let http = HttpFacts::new(method.as_str(), uri.path(), host, headers.as_ref());
                use_them(&inside(Inside::Http(&http)))
            }
        }
    }

    /// Why it is no longer allowed, if policies have changed so.
    pub(crate) fn denied(&mut self) -> Option<Denial> {
        let known = self.client.worker.permits.policies.get();
        if known <= self.decided {
            return None;
        }
        let mesh = self.client.worker.node.mesh.load();
        self.decided = mesh.policy_generation();
        self.decide(&mesh).err()
    }

    /// The same for one who would wait: who is told nothing now is woken when there is news.
    pub(crate) fn poll_denied(&mut self, cx: &Context<'_>) -> Poll<Denial> {
        if let Some(denial) = self.denied() {
            return Poll::Ready(denial);
        }
        let mut waiting = self.client.worker.permits.waiting.borrow_mut();
        match self.slot.and_then(|slot| waiting.get_mut(slot)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.slot = Some(waiting.insert(cx.waker().clone())),
        }
        Poll::Pending
    }

    /// Ends when it is no longer allowed.
    ///
    /// # Cancel safety
    /// Safe only as long as the answer ends what is watched: it is told once.
    pub(crate) async fn revoked(&mut self) -> Denial {
        poll_fn(|cx| self.poll_denied(cx)).await
    }

    /// Tells that a connection that became bytes ended for `denial`.
    pub(crate) fn tell(&self, denial: &Denial) {
        let failure = Failure::Revoked(denial.clone());
        metrics::ended(&self.client, Outcome::from(&failure), &failure);
    }

    /// Does `work`, as long as it is allowed.
    ///
    /// # Errors
    /// It no longer is; the work was dropped.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Denial> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_denied(cx).map(Err),
        })
        .await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.client.worker.permits.waiting.borrow_mut().try_remove(slot);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("decided", &self.decided).finish_non_exhaustive()
    }
}

/// What the client dialled. A service that was named is meant by its first address.
fn dialled(client: &Client) -> SocketAddr {
    match &client.target {
        Target::Workload { dialled, .. } | Target::Service { dialled: Some(dialled), .. } => {
            *dialled
        }
        Target::Service { service, port, .. } => {
            let own = |vip: &&shared::mesh::NetworkAddr| vip.network == client.own.network;
            let vip = service.vips.iter().find(own).or_else(|| service.vips.first());
            let ip = vip.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |vip| vip.address);
            SocketAddr::new(ip, *port)
        }
    }
}

/// Wakes those who wait whenever policies change, as long as the worker's part lives.
pub(crate) async fn keep_deciding(part: Weak<OnWorker>) {
    let Some(mut changed) = part.upgrade().map(|part| part.node.mesh.policies_changed()) else {
        return;
    };
    loop {
        {
            let Some(part) = part.upgrade() else { return };
            let policies = *changed.borrow_and_update();
            part.permits.policies.set(policies);
            for (_, waker) in part.permits.waiting.borrow().iter() {
                waker.wake_by_ref();
            }
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
