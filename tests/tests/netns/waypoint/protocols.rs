//! What is inside a tunnel is seen, and carried as what it is.

use std::time::Duration;

use anyhow::ensure;
use harness::eventually::pause;
use harness::wire::Wire;

use super::super::mesh::{SOON, listens, serve};
use super::super::suite::Case;
use super::lab::{APP, GRPC_APP, HTTP, HTTP2, Lab, SNIFFED_APP, UNNAMED, UNNAMED_TOO};
use super::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    ("waypoint::protocols::what_is_not_http_passes_as_it_is", &[], not_http),
    ("waypoint::protocols::http_is_seen_on_any_port", &[], seen_as_http),
    ("waypoint::protocols::a_port_that_the_service_lacks_is_refused", &[], unknown_port),
    ("waypoint::protocols::curl_speaks_both_versions", &["curl"], curl),
    ("waypoint::protocols::h2load_fails_nothing", &["h2load"], h2load),
    ("waypoint::protocols::nginx_serves_both_versions", &["nginx", "curl"], nginx),
];

fn not_http() -> anyhow::Result<()> {
    Lab::all(
        "protocols-tcp",
        &[
            ("a server that speaks first is heard", speaks_first),
            ("the same where the port is said to be TCP", speaks_first_on_tcp),
            ("bytes come back as they were, and so do the ends", echoed),
            ("what looks like HTTP at first is no HTTP", almost_http),
            ("a word without an end of line arrives", one_word),
        ],
    )
}

fn greeted(mut wire: Wire) -> anyhow::Result<()> {
    let greeting = wire.until(b"\r\n")?.unwrap_or_default();
    ensure!(greeting.starts_with(b"220 "), "{:?}", String::from_utf8_lossy(&greeting));
    wire.say("EHLO\r\n")?;
    ensure!(wire.take(6)? == b"EHLO\r\n");
    wire.finish()?;
    ensure!(wire.rest()? == b"221 bye\r\n");
    Ok(())
}

fn speaks_first(lab: &Lab) -> anyhow::Result<()> {
    let _server = serve(&lab.scene.v1, "banner", UNNAMED)?;
    greeted(lab.wire(UNNAMED)?)
}

fn speaks_first_on_tcp(lab: &Lab) -> anyhow::Result<()> {
    let _server = serve(&lab.scene.v1, "banner", 9090)?;
    greeted(Wire::open(&lab.scene.client, Scene::port("echo-v1", 9090))?)
}

fn echoed(lab: &Lab) -> anyhow::Result<()> {
    let _server = serve(&lab.scene.v1, "echo", UNNAMED_TOO)?;
    let all: Vec<u8> = (0..100_000_u32).flat_map(u32::to_be_bytes).collect();
    for said in [b"\x16\x03\x01 like TLS".as_slice(), b"*1\r\n$4\r\nPING\r\n", &all] {
        let mut wire = lab.wire(UNNAMED_TOO)?;
        wire.say(said)?;
        wire.finish()?;
        ensure!(wire.rest()? == said);
    }
    Ok(())
}

fn almost_http(lab: &Lab) -> anyhow::Result<()> {
    let _server = serve(&lab.scene.v1, "echo", UNNAMED_TOO)?;
    for said in ["GET the mail\r\n", "PRI * HTTP/3.0\r\n\r\n", "GE"] {
        let mut wire = lab.wire(UNNAMED_TOO)?;
        wire.say(said)?;
        wire.finish()?;
        ensure!(wire.rest()? == said.as_bytes(), "{said:?}");
    }
    Ok(())
}

/// Its client waits for an answer before it says more.
fn one_word(lab: &Lab) -> anyhow::Result<()> {
    let _server = serve(&lab.scene.v1, "echo", UNNAMED_TOO)?;
    let mut wire = lab.wire(UNNAMED_TOO)?;
    wire.say("hello")?;
    ensure!(wire.take(5)? == b"hello");
    Ok(())
}

fn seen_as_http() -> anyhow::Result<()> {
    Lab::all(
        "protocols-http",
        &[
            ("by its first line", at_once),
            ("also from slow clients, byte by byte", slowly),
            ("with any method", any_method),
            ("with a first line that is too long", long_line),
        ],
    )
}

fn at_once(lab: &Lab) -> anyhow::Result<()> {
    let seen = Lab::get(SNIFFED_APP, "/").from(&lab.scene.client)?.seen()?;
    ensure!(seen.headers.contains_key("x-request-id"), "{seen:?}");
    Ok(())
}

/// Nobody passes what is decided about requests by waiting until the server was asked to speak first.
fn slowly(lab: &Lab) -> anyhow::Result<()> {
    let mut wire = lab.wire(SNIFFED_APP)?;
    for part in ["", "G", "ET / HT", "TP/1.1\r\nHo", "st: lab\r\n\r\n"] {
        pause(Duration::from_millis(80));
        wire.say(part)?;
    }
    let seen = wire.answer("GET")?.seen()?;
    ensure!(seen.headers.contains_key("x-request-id"), "{seen:?}");
    Ok(())
}

fn any_method(lab: &Lab) -> anyhow::Result<()> {
    for method in ["get", "m-search", "x!1"] {
        let seen = Lab::get(SNIFFED_APP, "/").method(method).from(&lab.scene.client)?.seen()?;
        ensure!(seen.headers.contains_key("x-request-id"), "{seen:?}");
    }
    Ok(())
}

fn long_line(lab: &Lab) -> anyhow::Result<()> {
    let path = format!("/{}", "x".repeat(70_000));
    let answer = Lab::get(SNIFFED_APP, &path).from(&lab.scene.client)?;
    ensure!(answer.status == 431, "{answer:?}");
    Ok(())
}

fn unknown_port() -> anyhow::Result<()> {
    let lab = Lab::new("protocols-port")?;
    let ended = lab.wire(9999).and_then(|mut wire| Ok(wire.rest()?));
    ensure!(ended.is_err(), "{ended:?}");
    lab.told("PORT_UNKNOWN").map(drop)
}

/// What `curl` says about version, status and size of what it got.
fn curled(lab: &Lab, version: &str, port: u16, path: &str) -> anyhow::Result<String> {
    let curl =
        lab.scene.client.program("curl").args(["--silent", "--show-error", "--fail", version]);
    curl.args(["--max-time", "20", "--output", "/dev/null", "--write-out"])
        .arg("%{http_version} %{response_code} %{size_download}")
        .arg(format!("http://{}{path}", Lab::at(port)))
        .success(SOON)
}

fn curl() -> anyhow::Result<()> {
    let lab = Lab::new("protocols-curl")?;
    for port in [APP, SNIFFED_APP, GRPC_APP] {
        for (version, expected) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
            let said = curled(&lab, version, port, "/bytes/1000000")?;
            ensure!(said == format!("{expected} 200 1000000"), "{port}, {version}: {said:?}");
        }
    }
    Ok(())
}

fn h2load() -> anyhow::Result<()> {
    let lab = Lab::new("protocols-h2load")?;
    for (port, version) in [(APP, &[][..]), (APP, &["--h1"]), (GRPC_APP, &[])] {
        let program = lab.scene.client.program("h2load").args(version);
        let program = program.args(["-n", "2000", "-c", "4", "-m", "10"]);
        let report = program.arg(format!("http://{}/bytes/1000", Lab::at(port))).success(SOON)?;
        let all = "2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        ensure!(report.contains(all), "{port}, {version:?}: {report}");
        ensure!(report.contains("2000 2xx"), "{port}, {version:?}: {report}");
    }
    Ok(())
}

fn nginx() -> anyhow::Result<()> {
    let lab = Lab::new("protocols-nginx")?;
    let root = lab.scene.cluster.dir().join("www");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("page"), vec![b'x'; 1 << 20])?;
    let root = root.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {root}/{what};\n"))
        .concat();
    let config = lab.scene.cluster.dir().join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\n  access_log off;\n{temporary}\
             server {{ listen {HTTP}; listen {HTTP2} http2; root {root}; }}\n}}\n"
        ),
    )?;
    let _nginx = lab.scene.v1.program("nginx").arg("-c").arg(&config).start()?;
    listens(&lab.scene.v1, HTTP)?;
    for port in [HTTP, HTTP2] {
        for (version, expected) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
            let said = curled(&lab, version, port, "/page")?;
            ensure!(said == format!("{expected} 200 1048576"), "{port}, {version}: {said:?}");
        }
    }
    Ok(())
}
