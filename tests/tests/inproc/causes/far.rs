//! Reaching the other side: what stands where the destination, or its proxy, should.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::ensure;
use harness::eventually::becomes;
use harness::pod::{Pod, PodSpec};
use http::{Response, StatusCode};
use shared::identity::WorkloadCertificate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use ztunnel::outcome::Outcome;

use crate::inproc::log::{Log, SOON};
use crate::inproc::peer::{self, TUNNEL, spiffe, stand_in};
use crate::inproc::scene::{Scene, broken, deaf};
use crate::inproc::suite::cases;
use crate::inproc::wire::{SETTINGS, frame, send};
use crate::inproc::world::{World, connect, identity};

cases! {
    "far::a_plain_connection_that_is_refused_is_told": [CONNECT_FAILED] => refused;
    "far::a_plain_connection_that_nobody_answers_is_given_up": [CONNECT_TIMEOUT] => unanswered;
    "far::a_pod_without_a_certificate_reaches_no_peer": [IDENTITY_UNAVAILABLE] => uncertified;
    "far::a_pod_whose_certificate_has_expired_reaches_no_peer": [IDENTITY_UNAVAILABLE] => expired;
    "far::a_peer_without_a_proxy_is_told": [TUNNEL_CONNECT_FAILED] => no_proxy;
    "far::a_peer_whose_proxy_does_not_answer_is_given_up": [TUNNEL_CONNECT_TIMEOUT] => deaf_proxy;
    "far::a_peer_with_another_identity_is_refused": [TUNNEL_TLS_FAILED] => another_identity;
    "far::a_peer_that_shakes_no_hands_is_given_up": [TUNNEL_TLS_TIMEOUT] => silent_proxy;
    "far::a_peer_that_speaks_garbage_is_told": [TUNNEL_HTTP2_FAILED] => garbage;
    "far::a_peer_that_hangs_up_before_it_answers_is_told": [TUNNEL_LOST] => hangs_up;
    "far::a_peer_that_forgets_to_answer_is_given_up": [TUNNEL_ANSWER_TIMEOUT] => forgets;
    "far::an_application_that_does_not_wait_is_not_worked_for": [CLIENT_GONE] => impatient;
    "far::a_peer_that_resets_the_stream_is_told": [TUNNEL_REFUSED] => resets;
    "far::a_peer_that_rejects_the_target_is_believed": [PEER_REJECTED_TARGET] => rejects;
    "far::a_peer_that_denies_is_believed": [PEER_DENIED] => denies;
    "far::a_peer_whose_application_is_away_is_believed": [PEER_UNAVAILABLE] => unavailable;
    "far::a_peer_with_an_answer_of_its_own_is_told": [PEER_UNEXPECTED_STATUS] => unexpected;
}

/// A scene with one more pod in the mesh, on the far node.
async fn scene(log: &Log) -> anyhow::Result<(Scene, Pod, SocketAddr)> {
    let world = World::new(log)?;
    let far = world.far_pod(PodSpec::new("far"))?;
    let to = SocketAddr::new(far.ip(), 80);
    Ok((Scene::start(world).await?, far, to))
}

/// The same with a stand-in for the far pod's proxy that has shaken hands as the pod.
async fn with_peer<F>(log: &Log, serve: F) -> anyhow::Result<(Scene, SocketAddr, Pod)>
where
    F: AsyncFn(peer::ServerStream) -> anyhow::Result<()> + 'static,
{
    let (scene, far, to) = scene(log).await?;
    let certificate = scene.world.ca.issue(&identity(&far)?);
    stand_in_as(&far, certificate, serve)?;
    Ok((scene, to, far))
}

fn stand_in_as<F>(pod: &Pod, certificate: WorkloadCertificate, serve: F) -> anyhow::Result<()>
where
    F: AsyncFn(peer::ServerStream) -> anyhow::Result<()> + 'static,
{
    Ok(stand_in(pod, async move |stream| serve(peer::accept(&certificate, stream).await?).await)?)
}

async fn refused(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    let to = SocketAddr::new(scene.outsider.ip(), 81);
    scene.fails(to, Outcome::CONNECT_FAILED, "connection failed: Connection refused").await?;
    Ok(())
}

async fn unanswered(log: Log) -> anyhow::Result<()> {
    let mut scene = Scene::start(World::new(&log)?).await?;
    let _deaf = deaf(&scene.outsider, 81).await?;
    let to = SocketAddr::new(scene.outsider.ip(), 81);
    scene.fails(to, Outcome::CONNECT_TIMEOUT, "connection failed: timed out").await?;
    Ok(())
}

async fn uncertified(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let nobody = world.uncertified(PodSpec::new("nobody"))?;
    let mut scene = Scene::start(world).await?;
    broken(&nobody, scene.echo()).await?;
    let message = "identity error: read ns/default/sa/nobody/cert-chain.pem: No such file";
    log.tells(Outcome::IDENTITY_UNAVAILABLE, message).await?;
    scene.is_unharmed().await
}

async fn expired(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let late = world.uncertified(PodSpec::new("late"))?;
    let id = identity(&late)?;
    let hour = Duration::from_secs(3600);
    let pair = world.ca.issue_pem_with(&id, |params| {
        params.not_after = (std::time::SystemTime::now() - hour).into();
        params.not_before = (std::time::SystemTime::now() - 2 * hour).into();
    });
    world.certify(&id, &pair)?;
    let mut scene = Scene::start(world).await?;
    broken(&late, scene.echo()).await?;
    let message = format!("identity error: certificate for {id} has expired");
    log.tells(Outcome::IDENTITY_UNAVAILABLE, &message).await?;
    scene.is_unharmed().await
}

async fn no_proxy(log: Log) -> anyhow::Result<()> {
    let (mut scene, _far, to) = scene(&log).await?;
    scene
        .fails(to, Outcome::TUNNEL_CONNECT_FAILED, "connection failed: Connection refused")
        .await?;
    Ok(())
}

async fn deaf_proxy(log: Log) -> anyhow::Result<()> {
    let (mut scene, far, to) = scene(&log).await?;
    let _deaf = deaf(&far, TUNNEL).await?;
    let message = "maybe a NetworkPolicy is blocking HBONE port 15008";
    scene.fails(to, Outcome::TUNNEL_CONNECT_TIMEOUT, message).await?;
    Ok(())
}

async fn another_identity(log: Log) -> anyhow::Result<()> {
    let (mut scene, far, to) = scene(&log).await?;
    let other = spiffe("spiffe://cluster.local/ns/default/sa/thief")?;
    stand_in_as(&far, scene.world.ca.issue(&other), async |_| Ok(()))?;
    let message = format!("tls error: peer {other} is none of the expected identities");
    scene.fails(to, Outcome::TUNNEL_TLS_FAILED, &message).await?;
    Ok(())
}

async fn silent_proxy(log: Log) -> anyhow::Result<()> {
    let (mut scene, far, to) = scene(&log).await?;
    stand_in(&far, async |mut stream: TcpStream| {
        let mut heard = Vec::new();
        timeout(SOON, stream.read_to_end(&mut heard)).await??;
        Ok(())
    })?;
    scene.fails(to, Outcome::TUNNEL_TLS_TIMEOUT, "tls error: handshake timed out").await?;
    Ok(())
}

async fn garbage(log: Log) -> anyhow::Result<()> {
    let (mut scene, to, _far) = with_peer(&log, async |mut stream| {
        send(&mut stream, b"SSH-2.0-somebody else\r\n").await;
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    })
    .await?;
    let message = "h2 failed: peer broke the tunnel protocol";
    scene.fails(to, Outcome::TUNNEL_HTTP2_FAILED, message).await?;
    Ok(())
}

async fn hangs_up(log: Log) -> anyhow::Result<()> {
    let (mut scene, to, _far) = with_peer(&log, async |mut stream| {
        send(&mut stream, &frame(SETTINGS, 0, 0, &[])).await;
        // The request comes, and no answer goes.
        ensure!(stream.read(&mut [0; 4096]).await? > 0);
        Ok(())
    })
    .await?;
    scene.fails(to, Outcome::TUNNEL_LOST, "h2 failed: ").await?;
    Ok(())
}

/// Requests that a far proxy has got, and those of them that were taken back.
#[derive(Clone, Default)]
struct Requests {
    taken: Rc<Cell<usize>>,
    cancelled: Rc<Cell<usize>>,
}

/// A far proxy that takes requests and never answers.
async fn forgetful(log: &Log) -> anyhow::Result<(Scene, SocketAddr, Pod, Requests)> {
    let requests = Requests::default();
    let seen = requests.clone();
    let (scene, to, far) = with_peer(log, async move |stream| {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (request, respond) = request?;
            seen.taken.set(seen.taken.get() + 1);
            let cancelled = Rc::clone(&seen.cancelled);
            spawn_local(async move {
                let end = request.into_body().data().await;
                let reason = end.and_then(Result::err).and_then(|error| error.reason());
                cancelled.set(cancelled.get() + usize::from(reason == Some(h2::Reason::CANCEL)));
                drop(respond);
            });
        }
        Ok(())
    })
    .await?;
    Ok((scene, to, far, requests))
}

/// Waits until `count` has come that far.
async fn reaches(count: &Cell<usize>, goal: usize) -> anyhow::Result<()> {
    becomes(SOON, "requests of the far proxy", async || match count.get() {
        now if now == goal => Ok(()),
        now => Err(format!("{now} instead of {goal}")),
    })
    .await
}

async fn forgets(log: Log) -> anyhow::Result<()> {
    let (mut scene, to, _far, requests) = forgetful(&log).await?;
    let message = "h2 failed: peer did not answer within 30s";
    scene.fails(to, Outcome::TUNNEL_ANSWER_TIMEOUT, message).await?;
    // The peer is told.
    reaches(&requests.cancelled, 1).await
}

async fn impatient(log: Log) -> anyhow::Result<()> {
    let (mut scene, to, _far, requests) = forgetful(&log).await?;
    let mut patient = connect(&scene.client, to).await?;
    patient.shutdown().await?;
    let client = connect(&scene.client, to).await?;
    reaches(&requests.taken, 2).await?;
    // As a process that dies with unread bytes, or closes in anger.
    client.set_zero_linger()?;
    drop(client);
    let message = "client gave up before the destination answered";
    log.tells(Outcome::CLIENT_GONE, message).await?;
    reaches(&requests.cancelled, 1).await?;
    // Who has only said its part still waits for the answer.
    let waits = timeout(Duration::from_millis(200), patient.read(&mut [0])).await;
    ensure!(waits.is_err() && requests.cancelled.get() == 1, "{waits:?}");
    scene.is_unharmed().await
}

async fn resets(log: Log) -> anyhow::Result<()> {
    let (mut scene, to, _far) = with_peer(&log, async |stream| {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (_, mut respond) = request?;
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
        }
        Ok(())
    })
    .await?;
    let message = "h2 failed: peer reset the stream (INTERNAL_ERROR)";
    scene.fails(to, Outcome::TUNNEL_REFUSED, message).await?;
    Ok(())
}

/// A far proxy whose every answer is `status`, by `cause` where it says one.
async fn answered(
    log: &Log,
    (status, cause): (u16, Option<&'static str>),
    (outcome, message): (Outcome, &str),
) -> anyhow::Result<()> {
    let status = StatusCode::from_u16(status)?;
    let (mut scene, to, _far) = with_peer(log, async move |stream| {
        let mut connection = h2::server::handshake(stream).await?;
        while let Some(request) = connection.accept().await {
            let (_, mut respond) = request?;
            let mut response = Response::builder().status(status);
            if let Some(cause) = cause {
                response = response.header("culvert-cause", cause);
            }
            respond.send_response(response.body(())?, true)?;
        }
        Ok(())
    })
    .await?;
    scene.fails(to, outcome, message).await?;
    Ok(())
}

async fn rejects(log: Log) -> anyhow::Result<()> {
    let message = "http status: 400 (TARGET_FOREIGN)";
    let expected = (Outcome::PEER_REJECTED_TARGET, message);
    answered(&log, (400, Some("TARGET_FOREIGN")), expected).await
}

async fn denies(log: Log) -> anyhow::Result<()> {
    answered(&log, (401, None), (Outcome::PEER_DENIED, "http status: 401")).await
}

async fn unavailable(log: Log) -> anyhow::Result<()> {
    let message = "http status: 503 (APPLICATION_CONNECT_FAILED)";
    let expected = (Outcome::PEER_UNAVAILABLE, message);
    answered(&log, (503, Some("APPLICATION_CONNECT_FAILED")), expected).await
}

async fn unexpected(log: Log) -> anyhow::Result<()> {
    answered(&log, (418, None), (Outcome::PEER_UNEXPECTED_STATUS, "http status: 418")).await
}
