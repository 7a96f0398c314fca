//! One server: accepts, limits, answers, drains.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::guard::Refusal;
use super::listen::{Accepted, Listener};
use super::{Call, Exposure, Pages, Reply};
use crate::drain::Watch;

/// A client must have sent its headers by then, also on a connection that it keeps.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Headers, and what is read at once.
const BUFFER_BYTES: usize = 8 * 1024;
/// No page takes a body; what is sent nevertheless is read up to here.
const BODY_BYTES: usize = 64 * 1024;
/// The body must have come by then.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection ends after this, whatever it does: slow readers give their slot back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections at a time on one listener.
const CONNECTIONS: usize = 64;

/// Serves `pages` until the drain begins: then stops listening at once and finishes what was asked.
pub async fn serve(listener: Listener, exposure: Exposure, pages: Pages, drain: Watch) {
    let _guard = drain.guard();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut draining = pin!(drain.draining());
    loop {
        // Waiting for a slot before accepting leaves further clients in the kernel's queue.
        let accept = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = &mut draining => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (pages, drain) = (pages.clone(), drain.clone());
        match accepted {
            Ok(accepted) => {
                connections.spawn(async move {
                    match accepted {
                        Accepted::Tcp(io) => connection(io, exposure, pages, drain).await,
                        Accepted::Unix(io) => connection(io, exposure, pages, drain).await,
                    }
                    drop(slot);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Out of descriptors or memory: trying again at once would only spin.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "accepting an administrative connection failed");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection<Io>(io: Io, exposure: Exposure, pages: Pages, drain: Watch)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(response(answer(request, exposure, &pages).await)) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(io), service)
    );
    let ended = async {
        tokio::select! {
            ended = &mut connection => return ended,
            () = drain.draining() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    match tokio::time::timeout(CONNECTION_TIMEOUT, ended).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "administrative connection ended"),
        Err(_) => tracing::debug!("administrative connection took too long"),
    }
}

async fn answer(request: Request<Incoming>, exposure: Exposure, pages: &Pages) -> Reply {
    let (head, body) = request.into_parts();
    if let Err(Refusal(status, why)) = exposure.admit(&head.method, &head.headers) {
        return Reply::text(status, why);
    }
    let page = match pages.find(head.uri.path(), &head.method) {
        Ok(page) => page.clone(),
        Err(status) => return Reply::text(status, format!("{status}\n")),
    };
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n"),
        Err(_) => return Reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    page(Call { query, headers: head.headers }).await
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
