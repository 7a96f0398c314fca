use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pages::Dump;
use super::*;
use crate::drain::{self, Trigger};
use crate::ready::Ready;
use crate::telemetry::metrics::Registry;

const LOCAL: &str = "127.0.0.1:0";

struct Served {
    addr: SocketAddr,
    drain: Trigger,
}

fn served(exposure: Exposure, pages: Pages) -> Served {
    let listener = listen::tcp(LOCAL.parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    let (trigger, watch) = drain::channel();
    tokio::spawn(serve(listener, exposure, pages, watch));
    Served { addr, drain: trigger }
}

async fn exchange(mut io: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), io.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn ask(addr: SocketAddr, method: &str, target: &str) -> String {
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    exchange(TcpStream::connect(addr).await.unwrap(), &request).await
}

fn admin_pages() -> (Pages, mpsc::UnboundedReceiver<()>) {
    let (quit, asked) = mpsc::unbounded_channel();
    let dump = Dump::default().section("version", || "1".into()).section("config", || 2.into());
    (pages::admin(dump, None, quit), asked)
}

fn temporary(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("culvert-admin-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

async fn ask_unix(path: &Path, method: &str, target: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(UnixStream::connect(path).await.unwrap(), &request).await
}

#[tokio::test]
async fn readiness_names_what_is_pending_in_order() {
    let ready = Ready::default();
    let blockers = [ready.block("pods"), ready.block("feed")];
    let served = served(Exposure::Anyone, pages::readiness(ready));
    let answer = ask(served.addr, "GET", "/healthz/ready").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready, pending: feed, pods\n"), "{answer}");
    blockers.into_iter().for_each(crate::ready::Blocker::clear);
    let answer = ask(served.addr, "GET", "/healthz/ready").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nready\n"), "{answer}");
    assert!(ask(served.addr, "POST", "/healthz/ready").await.starts_with("HTTP/1.1 405 "));
    assert!(ask(served.addr, "GET", "/").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn metrics_are_the_same_at_both_paths() {
    let served = served(Exposure::Anyone, pages::statistics(Registry::default()));
    for path in ["/metrics", "/stats/prometheus"] {
        let answer = ask(served.addr, "GET", path).await;
        assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
    }
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                   accept: application/openmetrics-text\r\n\r\n";
    let answer = exchange(TcpStream::connect(served.addr).await.unwrap(), request).await;
    assert!(
        answer
            .contains("content-type: application/openmetrics-text;charset=utf-8;version=1.0.0\r\n")
    );
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn the_admin_port_reads_and_the_unix_socket_changes() {
    let (pages, mut quit) = admin_pages();
    let served = served(Exposure::Loopback, pages.clone());
    let dump = ask(served.addr, "GET", "/config_dump").await;
    let json: serde_json::Value =
        serde_json::from_str(dump.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(json, serde_json::json!({ "version": "1", "config": 2 }));
    assert!(ask(served.addr, "POST", "/quitquitquit").await.starts_with("HTTP/1.1 405 "));
    assert!(quit.try_recv().is_err());
    let foreign = "GET /config_dump HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let answer = exchange(TcpStream::connect(served.addr).await.unwrap(), foreign).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");

    let path = temporary("socket").join("admin.sock");
    let (_trigger, watch) = drain::channel();
    tokio::spawn(serve(listen::unix(&path).unwrap(), Exposure::Owner, pages, watch));
    assert!(ask_unix(&path, "GET", "/quitquitquit").await.starts_with("HTTP/1.1 405 "));
    assert!(ask_unix(&path, "POST", "/quitquitquit").await.ends_with("\r\n\r\nshutdown now\n"));
    assert!(quit.try_recv().is_ok());
}

#[tokio::test]
async fn a_second_process_takes_the_unix_socket_over_and_the_first_leaves_it() {
    let path = temporary("takeover").join("admin.sock");
    let page = |name: &'static str| {
        Pages::default().get("/who", move |_| Reply::text(StatusCode::OK, name))
    };
    let (first, watch) = drain::channel();
    tokio::spawn(serve(listen::unix(&path).unwrap(), Exposure::Owner, page("first"), watch));
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(ask_unix(&path, "GET", "/who").await.ends_with("first"));

    let (_second, watch) = drain::channel();
    tokio::spawn(serve(listen::unix(&path).unwrap(), Exposure::Owner, page("second"), watch));
    let _ = first.start(Instant::now() + Duration::from_secs(5)).await;
    assert!(ask_unix(&path, "GET", "/who").await.ends_with("second"));
    let others = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(others, 1, "no temporary name may be left");
}

#[tokio::test]
async fn a_second_process_can_listen_on_the_same_port_but_a_stranger_blocks_it() {
    let first = listen::tcp(LOCAL.parse().unwrap()).unwrap();
    listen::tcp(first.local_addr().unwrap()).unwrap();
    let stranger = std::net::TcpListener::bind(LOCAL).unwrap();
    let error = listen::tcp(stranger.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_silent_client_is_cut_off() {
    let served = served(Exposure::Anyone, pages::readiness(Ready::default()));
    let begun = Instant::now();
    exchange(TcpStream::connect(served.addr).await.unwrap(), "GET /healthz/ready HTT").await;
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let served = served(Exposure::Anyone, pages::readiness(Ready::default()));
    let long = "x".repeat(20_000);
    let request = format!("GET /healthz/ready HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n");
    let mut io = TcpStream::connect(served.addr).await.unwrap();
    io.write_all(request.as_bytes()).await.ok();
    let mut answer = Vec::new();
    // The server may reset the rest of the request; what it said before counts.
    io.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(ask(served.addr, "GET", "/healthz/ready").await.contains(" 200 "));
}

#[tokio::test]
async fn draining_closes_the_port_at_once_and_finishes_what_was_asked() {
    let (release, released) = tokio::sync::watch::channel(false);
    let pages = Pages::default().with("/slow", Method::GET, move |_| {
        let mut released = released.clone();
        async move {
            released.wait_for(|released| *released).await.ok();
            Reply::text(StatusCode::OK, "done")
        }
    });
    let Served { addr, drain } = served(Exposure::Anyone, pages);
    let asked = tokio::spawn(async move { ask(addr, "GET", "/slow").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let drained =
        tokio::spawn(async move { drain.start(Instant::now() + Duration::from_secs(10)).await });
    let mut closed = false;
    for _ in 0..100 {
        closed = TcpStream::connect(addr).await.is_err();
        if closed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(closed, "the port must be closed while a request is in flight");
    release.send(true).unwrap();
    assert!(asked.await.unwrap().ends_with("done"));
    assert_eq!(drained.await.unwrap(), drain::Outcome::Graceful);
}
