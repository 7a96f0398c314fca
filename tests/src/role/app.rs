//! An HTTP application that says what it saw: HTTP/1.1 and HTTP/2 on one port, plain.
//!
//! The answer is JSON of [`Seen`]. What the path says it does: `/status/N` answers N, `/bytes/N` a body
//! of N bytes, `/delay/MS` waits first; `/count` says how many other requests there were; `/reset` closes without an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde::{Deserialize, Serialize};

use super::servers::{self, Args};
use super::tls::Stream;

/// What the application saw of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Name of the pod.
    pub pod: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// The address that it came from.
    pub peer: String,
    /// Host, or `:authority`.
    pub host: String,
    /// Headers; repeated ones joined with a comma.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Trailers.
    pub trailers: BTreeMap<String, String>,
}

/// Requests of this process but for those that ask for this.
static COUNT: AtomicU64 = AtomicU64::new(0);

pub(super) async fn serve(args: Args) -> anyhow::Result<()> {
    let name = args.name.clone();
    servers::serve(args, async move |stream, peer| connection(stream, peer, name.clone()).await)
        .await
}

async fn connection(stream: Stream, peer: SocketAddr, name: String) -> std::io::Result<()> {
    let service = service_fn(move |request| answer(request, peer, name.clone()));
    Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(std::io::Error::other)
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    pod: String,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    let collected = body.collect().await.map_err(std::io::Error::other)?;
    let trailers = collected.trailers().map(texts).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut words = parts.uri.path().trim_start_matches('/').split('/');
    let (word, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut response = Response::new(Full::default());
    if word != "count" {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    match (word, number.parse::<u64>()) {
        ("delay", Ok(millis)) => late(Duration::from_millis(millis)).await,
        ("status", Ok(status)) => {
            let status =
                u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok());
            *response.status_mut() = status.unwrap_or(StatusCode::BAD_REQUEST);
        }
        ("bytes", Ok(bytes)) => {
            let bytes = usize::try_from(bytes).unwrap_or_default();
            *response.body_mut() = Full::new(Bytes::from(vec![b'x'; bytes]));
            return Ok(response);
        }
        ("count", _) => {
            let count = COUNT.load(Ordering::Relaxed).to_string();
            *response.body_mut() = Full::new(count.into());
            return Ok(response);
        }
        ("reset", _) => return Err(std::io::ErrorKind::ConnectionReset.into()),
        _ => {}
    }
    let host = parts.uri.authority().map(ToString::to_string);
    let headers = texts(&parts.headers);
    let seen = Seen {
        pod: pod.clone(),
        method: parts.method.to_string(),
        path,
        version: format!("{:?}", parts.version),
        peer: peer.to_string(),
        host: host.or_else(|| headers.get("host").cloned()).unwrap_or_default(),
        headers,
        body_bytes: collected.to_bytes().len(),
        trailers,
    };
    let text = serde_json::to_vec(&seen).map_err(std::io::Error::other)?;
    *response.body_mut() = Full::new(text.into());
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    if let Ok(pod) = http::HeaderValue::try_from(pod) {
        headers.insert("x-pod", pod);
    }
    Ok(response)
}

#[expect(clippy::disallowed_methods, reason = "the path asks for it")]
async fn late(time: Duration) {
    tokio::time::sleep(time).await;
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let text = texts.entry(name.to_string()).or_default();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&value);
    }
    texts
}
