//! Life of a request.
//!
//! admitted → allowed → route → faults → limits → filters (once per request) → backend
//! → attempts { endpoint → sent → classified } → filters of the response → told when the body has ended
//!
//! Invariants: one snapshot of the mesh per request; every request is answered exactly once and told
//! exactly once; nothing of a body is kept beyond what is needed to send it again.
//! Source: spec L7 §1.8, §1.11, §2.

mod admit;
mod attempt;
mod body;
mod destination;
mod failure;
mod faults;
mod forward;
mod mirror;
mod path;
pub mod reading;
mod replay;
mod session;
mod stick;
mod told;
mod tries;
mod websocket;

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use shared::authz::Permit;
use shared::mesh::{Mesh, Retry};

pub use self::admit::BadRequest;
pub(crate) use self::body::{Body, RequestBody};
pub(crate) use self::destination::{aim, check};
pub use self::failure::Failure;
pub(crate) use self::told::{Story, Told};

use self::admit::Upgrade;
use self::attempt::Attempts;
use self::destination::{Destination, destination};
use self::stick::Stick;
use crate::cluster::Wish;
use crate::permits::Watch;
use crate::resilience::deadline;
use crate::router::{Backend, Matched, Routed, Rule, Table};
use crate::tunnel::Client;
use crate::tunnel::http::Switch;
use crate::upstream::Version;
use crate::{permits, respond};

/// Answers one request of `client`. `switch` is where the upstream of an HTTP/1.1 upgrade is left.
pub(crate) async fn serve(
    client: Rc<Client>,
    switch: Option<Switch>,
    request: Request<Incoming>,
) -> Response<Told> {
    let mut story = Story::begin(&client, &request);
    let answered = match answer(&client, switch, request, &mut story).await {
        Ok(response) => response,
        Err(failure) => respond::failure(failure, &mut story),
    };
    story.tell_after(answered)
}

// One per request under way, moved once: 7,192 bytes when measured, a third of it the request, which
// each stage hands to the next.
shared::assert_size!(serve, fn(_, _, _) -> _, 7_424);

async fn answer(
    client: &Rc<Client>,
    switch: Option<Switch>,
    mut request: Request<Incoming>,
    story: &mut Story,
) -> Result<Response<Body>, Failure> {
    let upgrade = admit::admit(&mut request, client.worker.config())?;
    let mesh = client.worker.node.mesh.load();
    forward::tell_client(request.headers_mut(), client, &mesh);
    let (parts, body) = request.into_parts();
    let (permit, mut watch) =
        permits::admit_request(client, &mesh, &parts).map_err(Failure::Denied)?;
    story.audited = watch.audits(&mesh);
    let table = client.target.service().map(|service| client.worker.router.table(&mesh, service));
    let matched = table.as_deref().map_or(Ok(None), |table| routed(table, client, &parts))?;
    if let Some(matched) = &matched {
        story.route(matched.rule);
        faults::make(matched.rule, &mut watch, story).await?;
        if let Some(answer) = respond::instead(matched, &parts, client.target.port())? {
            return Ok(answer);
        }
    }
    client.limits.admit(client, &mesh, matched.map(|matched| matched.rule))?;
    let passing = Passing { client, mesh: &mesh, permit: &permit, matched, upgrade };
    passing.forward(Request::from_parts(parts, body), watch, switch, story).await
}

/// The rule of a request; none where no route is for its client.
fn routed<'t>(
    table: &'t Table,
    client: &Client,
    parts: &Parts,
) -> Result<Option<Matched<'t>>, Failure> {
    match table.route(client.target.port(), Some(client.peer.id().namespace()), parts) {
        Routed::Rule(matched) => Ok(Some(matched)),
        Routed::Default => Ok(None),
        Routed::NoMatch => Err(Failure::NoRoute),
    }
}

/// A request that may pass, and its way.
struct Passing<'t> {
    client: &'t Rc<Client>,
    mesh: &'t Mesh,
    permit: &'t Permit,
    matched: Option<Matched<'t>>,
    upgrade: Option<Upgrade>,
}

impl Passing<'_> {
    /// Sends it to its backend, as the rule wants, and makes the answer the client's.
    async fn forward(
        self,
        request: Request<Incoming>,
        mut watch: Watch,
        switch: Option<Switch>,
        story: &mut Story,
    ) -> Result<Response<Body>, Failure> {
        let Self { client, mesh, permit, matched, upgrade } = self;
        let version = request.version();
        let (mut parts, body) = request.into_parts();
        let origin = parts.headers.get(http::header::ORIGIN).cloned();
        let held = matched.and_then(|one| session::find(one.rule, &parts.headers, mesh, client));
        let found = held.as_ref().and_then(|held| held.found.as_ref());
        let destination = destination(client, mesh, matched.as_ref(), found)?;
        if let Some(service) = destination.service {
            story.service = Some(Arc::clone(service));
        }
        if let Some(matched) = &matched {
            edit_request(matched, &destination, &mut parts)?;
        }
        let stick = Stick::of(&destination.cluster, &parts, client);
        let version = Version::of(destination.protocol, version, destination.cluster.upgrade());
        let websocket = upgrade.as_ref().and_then(Upgrade::key).map(<[u8]>::to_vec);
        forward::to_upstream(&mut parts, version, upgrade.is_some());
        story.forwarded(&parts);
        let body = RequestBody::of(body, Rc::clone(&story.received));
        forward::frame(&mut parts, !http_body::Body::is_end_stream(&body));
        let body = match &matched {
            Some(matched) => mirror::start(client, permit, mesh, matched, &parts, body),
            None => body,
        };
        let attempts = Attempts {
            client,
            permit,
            cluster: destination.cluster,
            wish: Wish { session: found.map(|(_, endpoint)| endpoint.address), hash: stick.hash },
            service: destination.service,
            version,
            upgrade: upgrade.is_some(),
            limits: Limits::of(matched.as_ref().map(|matched| matched.rule), &parts.headers),
        };
        let sent = {
            // Pinned here: given away, it would be kept twice.
            let sending = pin!(attempts.run(Request::from_parts(parts, body), story));
            watch.during(sending).await.map_err(Failure::Revoked)??
        };
        let mut response = sent.response;
        if upgrade.is_none() && response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::Switched);
        }
        forward::to_client(&mut response, story.took());
        if let Some(matched) = &matched {
            edit_response(matched, destination.backend, origin.as_ref(), response.headers_mut());
        }
        stick.tell(response.headers_mut());
        if let (Some(held), Some(endpoint)) = (&held, &story.endpoint) {
            held.tell(endpoint, response.headers_mut());
        }
        match (upgrade, sent.upgraded) {
            (Some(upgrade), Some(upgraded)) => {
                websocket::switch(upgrade, switch, upgraded.watched(watch), response, websocket)
            }
            // No, or no upgrade was asked for.
            _ => {
                story.watch = Some(watch);
                Ok(response)
            }
        }
    }
}

/// How long and how often.
#[derive(Debug, Clone, Copy, Default)]
struct Limits<'t> {
    /// From the head to the end of the response: the route's, or what the caller leaves.
    request: Option<Duration>,
    /// One attempt.
    backend: Option<Duration>,
    /// What the route asks to repeat.
    retry: Option<&'t Retry>,
    /// Attempts that hops before this one have made in vain.
    earlier: u32,
    /// Whether it is gRPC, which has a header of its own for its deadline.
    is_grpc: bool,
}

impl<'t> Limits<'t> {
    fn of(rule: Option<&'t Rule>, headers: &HeaderMap) -> Self {
        let is_grpc = told::is_grpc(headers);
        let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
        let left = deadline::left_by_caller(headers, is_grpc);
        Self {
            request: [timeouts.request, left].into_iter().flatten().min(),
            backend: timeouts.backend_request,
            retry: rule.and_then(|rule| rule.retry.as_deref()),
            earlier: tries::earlier(headers),
            is_grpc,
        }
    }
}

/// The filters of the rule, then those of the backend.
fn edit_request(
    matched: &Matched<'_>,
    destination: &Destination<'_>,
    parts: &mut Parts,
) -> Result<(), Failure> {
    let filters = &matched.rule.filters;
    filters.request_headers.apply_to_request(parts);
    if let Some(rewrite) = &filters.rewrite {
        rewrite.apply(parts, matched.prefix).map_err(Failure::Rewrite)?;
    }
    if let Some(backend) = destination.backend {
        backend.request_headers.apply_to_request(parts);
    }
    Ok(())
}

/// The filters of the backend, then those of the rule.
fn edit_response(
    matched: &Matched<'_>,
    backend: Option<&Backend>,
    origin: Option<&HeaderValue>,
    headers: &mut HeaderMap,
) {
    if let Some(backend) = backend {
        backend.response_headers.apply(headers);
    }
    matched.rule.filters.response_headers.apply(headers);
    if let Some(cors) = &matched.rule.filters.cors {
        cors.decorate(origin, headers);
    }
}
