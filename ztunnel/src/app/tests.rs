use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::telemetry::Sink;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use super::*;

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("culvert-app-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("mesh")).unwrap();
        std::fs::create_dir_all(path.join("certs")).unwrap();
        Self(path)
    }

    /// A process that serves nobody, on ports that the system chooses, with other flags on top.
    fn config(&self, others: &[(&'static str, String)]) -> Config {
        let path = |name: &str| self.0.join(name).display().to_string();
        let mut flags: BTreeMap<&'static str, String> = BTreeMap::from([
            ("mesh", path("mesh")),
            ("certs", path("certs")),
            ("state", path("state")),
            ("dedicated", "shop/web".to_owned()),
        ]);
        flags.extend(["admin", "stats", "ready"].map(|flag| (flag, "127.0.0.1:0".to_owned())));
        flags.extend(others.iter().cloned());
        Config::parse(&Given::new(flags, &BTreeMap::<String, String>::new())).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.0.join("state/admin.sock")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn log() -> Log {
    Log::to(Sink::start(std::io::sink()).unwrap())
}

async fn exchange(mut io: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str) -> String {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), io.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(TcpStream::connect(address).await.unwrap(), "GET", path).await
}

async fn becomes_ready(address: SocketAddr) {
    for _ in 0..500 {
        if get(address, "/healthz/ready").await.ends_with("\r\n\r\nready\n") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("did not become ready: {}", get(address, "/healthz/ready").await);
}

fn failure(config: Config) -> (String, String) {
    let failure = build(config, log()).unwrap_err();
    let advice = failure.advice().unwrap_or_default();
    (format!("{:#}", anyhow::Error::from(failure)), advice)
}

#[tokio::test]
async fn a_process_serves_until_it_is_told_to_stop() {
    let scratch = Scratch::new("serves");
    let bound = build(scratch.config(&[]), log()).unwrap();
    let addresses = bound.addresses();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(bound.run_until(async { drop(stopped.await) }));
    becomes_ready(addresses.ready).await;
    let metrics = get(addresses.stats, "/metrics").await;
    assert!(metrics.contains("istio_build{component=\"ztunnel\""), "{metrics}");
    let dump = get(addresses.admin, "/config_dump").await;
    for key in [
        "version",
        "config",
        "workloads",
        "services",
        "policies",
        "certificates",
        "workloadState",
        "verdicts",
    ] {
        assert!(dump.contains(&format!("\"{key}\":")), "{key} is missing in {dump}");
    }
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
    for address in [addresses.admin, addresses.stats, addresses.ready] {
        TcpStream::connect(address).await.unwrap_err();
    }
}

#[tokio::test]
async fn quitting_is_asked_for_on_the_socket_only() {
    let scratch = Scratch::new("quits");
    let bound = build(scratch.config(&[]), log()).unwrap();
    let admin = bound.addresses().admin;
    let running = tokio::spawn(bound.run_until(std::future::pending()));
    let refused = exchange(TcpStream::connect(admin).await.unwrap(), "POST", "/quitquitquit").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    let socket = UnixStream::connect(scratch.socket()).await.unwrap();
    let answer = exchange(socket, "POST", "/quitquitquit").await;
    assert!(answer.ends_with("shutdown now\n"), "{answer}");
    tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_second_process_starts_beside_the_first() {
    let scratch = Scratch::new("beside");
    let first = build(scratch.config(&[]), log()).unwrap();
    let addresses = first.addresses();
    let same = [
        ("admin", addresses.admin.to_string()),
        ("stats", addresses.stats.to_string()),
        ("ready", addresses.ready.to_string()),
    ];
    let second = build(scratch.config(&same), log()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let old = tokio::spawn(first.run_until(async { drop(stopped.await) }));
    let new = tokio::spawn(second.run_until(std::future::pending()));
    stop.send(()).unwrap();
    old.await.unwrap();
    becomes_ready(addresses.ready).await;
    let socket = UnixStream::connect(scratch.socket()).await.unwrap();
    exchange(socket, "POST", "/quitquitquit").await;
    tokio::time::timeout(Duration::from_secs(10), new).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_flag() {
    let scratch = Scratch::new("taken");
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    let (message, advice) = failure(scratch.config(&[("stats", address.to_string())]));
    assert!(
        message.starts_with(&format!("listen on {address} for statistics (--stats): ")),
        "{message}"
    );
    assert!(advice.contains("another program has port") && advice.contains("--stats"), "{advice}");
}

#[tokio::test]
async fn a_mesh_directory_that_cannot_be_read_is_named() {
    let scratch = Scratch::new("unreadable");
    let missing = scratch.0.join("no-such").display().to_string();
    let (message, advice) = failure(scratch.config(&[("mesh", missing.clone())]));
    assert!(message.contains("--mesh") && message.contains(&missing), "{message}");
    assert!(advice.contains("ztunnel check"), "{advice}");
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let scratch = Scratch::new("state");
    // No user can make directories here, not even root.
    let (message, advice) = failure(scratch.config(&[("state", "/proc/culvert".to_owned())]));
    assert!(message.starts_with("use the state directory /proc/culvert (--state): "), "{message}");
    assert!(advice.contains("--state DIR"), "{advice}");
}

#[tokio::test]
async fn certificates_that_are_not_there_are_named() {
    let scratch = Scratch::new("certs");
    let missing = scratch.0.join("no-such").display().to_string();
    let (message, advice) = failure(scratch.config(&[("certs", missing.clone())]));
    assert!(message.contains("--certs") && message.contains(&missing), "{message}");
    assert!(advice.contains("root-cert.pem"), "{advice}");
}

#[test]
fn exit_codes_tell_mistakes_from_answers() {
    let run = |arguments: &[&str]| {
        let arguments = std::iter::once(&"ztunnel").chain(arguments).copied();
        format!("{:?}", run_from(arguments, &BTreeMap::<String, String>::new()))
    };
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(run(&["version"]), code(0));
    assert_eq!(run(&["run", "--help"]), code(0));
    assert_eq!(run(&["run"]), code(64));
    assert_eq!(run(&["run", "--unknown"]), code(64));
    assert_eq!(run(&["check", "/no/such/directory"]), code(1));
}

#[test]
fn the_socket_is_in_the_state_directory() {
    assert_eq!(process::socket_path(Path::new("/s")), Path::new("/s/admin.sock"));
}
