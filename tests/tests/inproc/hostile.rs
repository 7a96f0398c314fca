//! Bad input against the real inbound listener, over real TLS: each is refused with a clear message
//! and a cause, at the caller and in the log, and harms nobody else.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{HeaderMap, HeaderValue, StatusCode};
use shared::identity::test_util::TestCa;
use shared::identity::{TrustDomain, WorkloadCertificate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use ztunnel::outcome::Outcome;

use super::log::{Log, SOON};
use super::peer::{ClientStream, NoCertificate, ask, spiffe};
use super::scene::Scene;
use super::suite::cases;
use super::wire::{
    CONTINUATION, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, RST_STREAM, connect_block, frame,
    goaway, greeting, rest, send,
};
use super::world::{World, identity};

cases! {
    "hostile::a_target_that_is_no_address_is_refused": [AUTHORITY_INVALID] => no_address;
    "hostile::a_target_in_another_pod_is_refused": [TARGET_FOREIGN] => foreign_target;
    "hostile::a_caller_without_a_certificate_is_refused": [CLIENT_TLS_FAILED] => no_certificate;
    "hostile::a_caller_of_a_foreign_root_is_refused": [CLIENT_TLS_FAILED] => foreign_root;
    "hostile::a_caller_whose_certificate_has_expired_is_refused": [CLIENT_TLS_FAILED] => expired;
    "hostile::a_caller_of_another_trust_domain_is_refused": [CLIENT_TLS_FAILED] => trust_domain;
    "hostile::a_caller_that_speaks_no_tls_is_refused": [CLIENT_TLS_FAILED] => no_tls;
    "hostile::a_caller_that_speaks_tls_1_2_is_refused": [CLIENT_TLS_FAILED] => old_tls;
    "hostile::handshakes_that_never_end_are_given_up": [CLIENT_TLS_TIMEOUT] => endless_handshakes;
    "hostile::a_request_that_is_no_connect_is_refused": [REQUEST_INVALID] => no_connect;
    "hostile::headers_beyond_the_limit_are_refused": [REQUEST_INVALID] => oversized_headers;
    "hostile::headers_that_never_end_end_the_connection": [CLIENT_HTTP2_FAILED] => endless_headers;
    "hostile::streams_opened_and_reset_end_the_connection": [CLIENT_HTTP2_FAILED] => rapid_resets;
    "hostile::garbage_for_a_preface_ends_the_connection": [CLIENT_HTTP2_FAILED] => no_preface;
    "hostile::garbage_after_the_preface_ends_the_connection": [CLIENT_HTTP2_FAILED] => garbage;
    "hostile::a_caller_that_says_nothing_after_tls_is_given_up": [CLIENT_HTTP2_FAILED] => silent;
}

async fn scene(log: &Log) -> anyhow::Result<Scene> {
    Scene::start(World::new(log)?).await
}

async fn no_address(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    for authority in ["nonsense", "10.1.0.2:0", "server:port", "user@10.1.0.2:80"] {
        let answer =
            scene.ask(authority).await.with_context(|| format!("asking for {authority}"))?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{answer:?}");
        ensure!(answer.cause.as_deref() == Some("AUTHORITY_INVALID"), "{answer:?}");
        log.line(&["cause=\"AUTHORITY_INVALID\"", "invalid authority", authority]).await?;
    }
    scene.is_unharmed().await
}

async fn foreign_target(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    for foreign in [scene.client.ip().to_string(), "127.0.0.1".into(), "169.254.169.254".into()] {
        let answer = scene.ask(&format!("{foreign}:7")).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{answer:?}");
        ensure!(answer.cause.as_deref() == Some("TARGET_FOREIGN"), "{answer:?}");
        let mismatch = format!("ip mismatch: {} != {foreign}", scene.server.ip());
        log.line(&["cause=\"TARGET_FOREIGN\"", &mismatch]).await?;
    }
    scene.is_unharmed().await
}

/// The server hangs up on a caller with `certificate`, and says why in words with `message`.
async fn refused(
    scene: &mut Scene,
    certificate: &WorkloadCertificate,
    message: &str,
) -> anyhow::Result<()> {
    let config = scene.calling(certificate)?;
    hangs_up(scene.shake_with(config).await?).await?;
    scene.world.log.tells(Outcome::CLIENT_TLS_FAILED, message).await?;
    scene.is_unharmed().await
}

/// The peer ends the connection without an answer.
async fn hangs_up(mut stream: ClientStream) -> anyhow::Result<()> {
    send(&mut stream, &greeting()).await;
    let answer = timeout(SOON, stream.read(&mut [0; 64])).await.context("still open")?;
    ensure!(!matches!(answer, Ok(1..)), "answered: {answer:?}");
    Ok(())
}

async fn no_certificate(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut config = (*scene.calling(&scene.certificate()?)?).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    hangs_up(scene.shake_with(Arc::new(config)).await?).await?;
    log.tells(Outcome::CLIENT_TLS_FAILED, "peer sent no certificates").await?;
    scene.is_unharmed().await
}

async fn foreign_root(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    // The root's name alone proves nothing.
    for (name, message) in [("elsewhere", "UnknownIssuer"), ("cluster.local", "BadSignature")] {
        let foreign = TestCa::new(&TrustDomain::new(name)?);
        let pair = foreign.issue_pem(&identity(&scene.client)?);
        // It trusts our root, or it would be the one to hang up.
        let both = format!("{}{}", foreign.root_pem(), scene.world.ca.root_pem());
        let (chain, key) = (pair.chain.as_bytes(), pair.key.as_bytes());
        let certificate = WorkloadCertificate::from_pem(chain, key, both.as_bytes())?;
        hangs_up(scene.shake_with(scene.calling(&certificate)?).await?).await?;
        let message = format!("invalid peer certificate: {message}");
        log.line(&["cause=\"CLIENT_TLS_FAILED\"", &message]).await?;
    }
    scene.is_unharmed().await
}

async fn expired(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let certificate = scene.world.ca.issue_expired(&identity(&scene.client)?);
    refused(&mut scene, &certificate, "invalid peer certificate: certificate expired").await
}

async fn trust_domain(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let stranger = spiffe("spiffe://elsewhere/ns/default/sa/client")?;
    let certificate = scene.world.ca.issue(&stranger);
    let message = "peer spiffe://elsewhere/ns/default/sa/client is not of our trust domain";
    refused(&mut scene, &certificate, message).await
}

async fn no_tls(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut stream = scene.reach().await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await?;
    timeout(SOON, rest(&mut stream)).await.context("still open")?;
    log.tells(Outcome::CLIENT_TLS_FAILED, "InvalidContentType").await?;
    scene.is_unharmed().await
}

/// A hello of TLS 1.2 that asks for nothing unusual (RFC 5246 §7.4.1.2).
fn old_hello() -> Vec<u8> {
    const EXTENSIONS: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: P-256
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ECDSA with P-256 and SHA-256
    ];
    // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
    let fixed = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2b, 1, 0]].concat();
    let length = |bytes: usize| (bytes as u16).to_be_bytes();
    let body = [&fixed, &length(EXTENSIONS.len())[..], EXTENSIONS].concat();
    let message = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[22, 3, 1][..], &length(message.len()), &message].concat()
}

async fn old_tls(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut stream = scene.reach().await?;
    stream.write_all(&old_hello()).await?;
    let answer = timeout(SOON, rest(&mut stream)).await.context("still open")?;
    // RFC 8446 §6.2: a fatal alert, protocol_version.
    ensure!(answer.first() == Some(&21) && answer.ends_with(&[2, 70]), "{answer:?}");
    log.tells(Outcome::CLIENT_TLS_FAILED, "peer is incompatible").await?;
    scene.is_unharmed().await
}

async fn endless_handshakes(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut callers = Vec::new();
    for _ in 0..100 {
        let mut caller = scene.reach().await?;
        caller.write_all(&old_hello()[..20]).await?;
        callers.push(caller);
    }
    scene.is_unharmed().await?;
    log.tells(Outcome::CLIENT_TLS_TIMEOUT, "tls error: handshake timed out").await?;
    for caller in &mut callers {
        timeout(SOON, rest(caller)).await.context("still open")?;
    }
    scene.is_unharmed().await
}

async fn no_connect(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let (sender, connection) = h2::client::handshake(scene.shake().await?).await?;
    tokio::task::spawn_local(connection);
    let request = http::Request::get("https://server/").body(())?;
    let (response, _) = sender.ready().await?.send_request(request, true)?;
    let response = response.await?;
    ensure!(response.status() == StatusCode::BAD_REQUEST, "{response:?}");
    ensure!(shared::headers::cause(response.headers()) == Some("REQUEST_INVALID"), "{response:?}");
    log.tells(Outcome::REQUEST_INVALID, "not a CONNECT request").await?;
    scene.is_unharmed().await
}

async fn oversized_headers(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let value = HeaderValue::from_bytes(&vec![b'x'; 70_000])?;
    let headers = HeaderMap::from_iter([(http::header::COOKIE, value)]);
    let answer = ask(scene.shake().await?, &scene.echo().to_string(), headers).await?;
    ensure!(answer.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{answer:?}");
    ensure!(answer.cause.as_deref() == Some("REQUEST_INVALID"), "{answer:?}");
    log.tells(Outcome::REQUEST_INVALID, "headers are larger than 64 KiB").await?;
    scene.is_unharmed().await
}

/// What the server says when it ends a connection on which `frames` came.
async fn last_words(scene: &Scene, frames: &[u8]) -> anyhow::Result<(u32, String)> {
    let mut stream = scene.shake().await?;
    send(&mut stream, frames).await;
    let said = timeout(SOON, rest(&mut stream)).await.context("still open")?;
    goaway(&said).context("no GOAWAY")
}

async fn endless_headers(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut frames = greeting();
    frames.extend(frame(HEADERS, 0, 1, &connect_block("10.1.0.2:7")));
    for _ in 0..10_000 {
        frames.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    let (code, words) = last_words(&scene, &frames).await?;
    ensure!(code == ENHANCE_YOUR_CALM && words == "endless continuation", "{code}: {words}");
    log.tells(Outcome::CLIENT_HTTP2_FAILED, "endless continuation").await?;
    scene.is_unharmed().await
}

async fn rapid_resets(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let block = connect_block(&scene.echo().to_string());
    let mut frames = greeting();
    for stream in (1..4_000).step_by(2) {
        frames.extend(frame(HEADERS, END_HEADERS, stream, &block));
        frames.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    let (code, words) = last_words(&scene, &frames).await?;
    ensure!(code == ENHANCE_YOUR_CALM && words.contains("flood"), "{code}: {words}");
    log.tells(Outcome::CLIENT_HTTP2_FAILED, "flood of streams that come to nothing").await?;
    scene.is_unharmed().await
}

async fn no_preface(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    last_words(&scene, b"GET / HTTP/1.1\r\nhost: server\r\n\r\n").await?;
    log.tells(Outcome::CLIENT_HTTP2_FAILED, "peer broke the tunnel protocol").await?;
    scene.is_unharmed().await
}

async fn garbage(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    last_words(&scene, &[&greeting()[..], &[0xff; 4096]].concat()).await?;
    log.tells(Outcome::CLIENT_HTTP2_FAILED, "peer broke the tunnel protocol").await?;
    scene.is_unharmed().await
}

async fn silent(log: Log) -> anyhow::Result<()> {
    let mut scene = scene(&log).await?;
    let mut stream = scene.shake().await?;
    let ended = timeout(Duration::from_secs(30), rest(&mut stream)).await;
    ended.context("still open")?;
    let words = "peer did not begin the tunnel protocol in time";
    log.tells(Outcome::CLIENT_HTTP2_FAILED, words).await?;
    scene.is_unharmed().await
}
