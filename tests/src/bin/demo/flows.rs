//! The flows: what is sent, what came of it, and what the ztunnels say about it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::role::load;
use serde_json::Value;

use crate::say;
use crate::scene::{LEDGER_PORT, SHOP_PORT, SOON, Scene};

/// What is told about one flow.
pub(crate) struct Flow {
    pub(crate) title: &'static str,
    /// Whether it went as it should.
    pub(crate) good: bool,
    /// What the application saw.
    pub(crate) outcome: String,
    /// Where its bytes went.
    pub(crate) path: String,
    /// Which identities were proved to each other.
    pub(crate) identities: String,
}

/// Runs all flows, one after the other.
pub(crate) fn run(scene: &Scene) -> anyhow::Result<Vec<Flow>> {
    say("\nSending traffic");
    let flows = vec![
        shop(scene)?,
        outside_in(scene)?,
        inside_out(scene)?,
        ledger(scene)?,
        intruder(scene)?,
        plain_ledger(scene)?,
    ];
    Ok(flows)
}

fn shop(scene: &Scene) -> anyhow::Result<Flow> {
    say("  client → shop: 200 HTTP requests a second for 3 s, to a virtual address");
    let report: load::Report = scene
        .client
        .role("load")
        .args(["--target", &format!("shop:{SHOP_PORT}"), "--rate", "200", "--seconds", "3"])
        .args(["--connections", "16"])
        .start()?
        .result(SOON)?;
    let shares: Vec<_> =
        report.servers.iter().map(|(name, count)| format!("{count} by {name}")).collect();
    let identities = identities(scene, &scene.client, &[&scene.shop_v1, &scene.shop_v2])?;
    Ok(Flow {
        title: "client → shop (HTTP, virtual address)",
        good: report.failed() == 0 && report.servers.len() == 2 && identities.is_some(),
        outcome: format!(
            "{} answered ({}), {} failed; p50 {}, p99 {}",
            report.ok,
            shares.join(", "),
            report.failed(),
            milliseconds(report.p50_us),
            milliseconds(report.p99_us)
        ),
        path: "ztunnel-a → HBONE → pod on node-a and, over the wire, pod on node-b".to_owned(),
        identities: identities.unwrap_or_else(|| "none seen".to_owned()),
    })
}

fn ledger(scene: &Scene) -> anyhow::Result<Flow> {
    say("  client → ledger: a protocol where the server speaks first");
    let started = std::time::Instant::now();
    let talk = talk(&scene.client, SocketAddr::new(scene.ledger.ip(), LEDGER_PORT), b"hello\r\n");
    let took = started.elapsed();
    let identities = identities(scene, &scene.client, &[&scene.ledger])?;
    let (heard, good) = match talk {
        Ok(heard) => {
            let seen = heard.contains(&format!("sees {}", scene.client.ip()))
                || heard.contains(&format!("::ffff:{}", scene.client.ip()));
            let whole = seen && heard.contains("hello") && heard.contains("221 bye");
            (format!("{:?} and its echo, half-closed, last word heard", first_line(&heard)), whole)
        }
        Err(error) => (error.to_string(), false),
    };
    Ok(Flow {
        title: "client → ledger (server speaks first)",
        good: good && identities.is_some(),
        outcome: format!("{heard}; {:.1} ms", took.as_secs_f64() * 1000.0),
        path: "ztunnel-a → HBONE over the wire → ztunnel-b; the app sees the client's address"
            .to_owned(),
        identities: identities.unwrap_or_else(|| "none seen".to_owned()),
    })
}

fn outside_in(scene: &Scene) -> anyhow::Result<Flow> {
    say("  outsider → shop-v1: from a pod outside the mesh");
    let target = SocketAddr::new(scene.shop_v1.ip(), 8080);
    let (good, outcome) = get(&scene.outsider, target);
    Ok(Flow {
        title: "outsider → shop-v1 (HTTP)",
        good,
        outcome,
        path: "plaintext to node-a, captured by ztunnel-a, allowed: shop is PERMISSIVE".to_owned(),
        identities: "none: the caller has no certificate".to_owned(),
    })
}

fn inside_out(scene: &Scene) -> anyhow::Result<Flow> {
    say("  client → outsider: to a pod outside the mesh");
    let target = SocketAddr::new(scene.outsider.ip(), 8080);
    let (good, outcome) = get(&scene.client, target);
    Ok(Flow {
        title: "client → outsider (HTTP)",
        good,
        outcome,
        path: "ztunnel-a passes it on in plaintext: outsider has no ztunnel".to_owned(),
        identities: "none: the callee has no certificate".to_owned(),
    })
}

fn intruder(scene: &Scene) -> anyhow::Result<Flow> {
    say("  intruder → ledger: a pod of the mesh that policy does not allow");
    let talked =
        talk(&scene.intruder, SocketAddr::new(scene.ledger.ip(), LEDGER_PORT), b"hello\r\n");
    let denial = denial(scene, &scene.intruder)?;
    Ok(Flow {
        title: "intruder → ledger",
        good: refused(&talked) && denial.is_some(),
        outcome: describe_refusal(&talked),
        path: format!("refused by ztunnel-b: {}", denial.unwrap_or_default()),
        identities: format!("{} was proved, and is not allowed", scene.intruder.identity()),
    })
}

fn plain_ledger(scene: &Scene) -> anyhow::Result<Flow> {
    say("  outsider → ledger: plaintext to a pod that demands mutual TLS");
    let talked =
        talk(&scene.outsider, SocketAddr::new(scene.ledger.ip(), LEDGER_PORT), b"hello\r\n");
    let denial = denial(scene, &scene.outsider)?;
    Ok(Flow {
        title: "outsider → ledger",
        good: refused(&talked) && denial.is_some(),
        outcome: describe_refusal(&talked),
        path: format!("refused by ztunnel-b: {}", denial.unwrap_or_default()),
        identities: "none: the ledger is STRICT and the caller has no certificate".to_owned(),
    })
}

/// Says `word` to `target` from within `pod`, ends its side, and hears the rest.
fn talk(pod: &Pod, target: SocketAddr, word: &[u8]) -> std::io::Result<String> {
    pod.netns().run(|| {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut heard = vec![0; 256];
        let count = stream.read(&mut heard)?;
        heard.truncate(count);
        stream.write_all(word)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut heard)?;
        Ok(String::from_utf8_lossy(&heard).into_owned())
    })
}

fn refused(talked: &std::io::Result<String>) -> bool {
    match talked {
        Ok(heard) => heard.is_empty(),
        Err(_) => true,
    }
}

fn describe_refusal(talked: &std::io::Result<String>) -> String {
    match talked {
        Ok(heard) if heard.is_empty() => "closed without a byte".to_owned(),
        Ok(heard) => format!("heard {:?}, which it should not", first_line(heard)),
        Err(error) => format!("refused: {error}"),
    }
}

fn get(pod: &Pod, target: SocketAddr) -> (bool, String) {
    let started = std::time::Instant::now();
    match pod.get(&target.to_string(), "/") {
        Ok((200, body)) => {
            let took = started.elapsed().as_secs_f64() * 1000.0;
            let name = body.split(' ').next().unwrap_or_default().to_owned();
            (true, format!("200 from {name}; {took:.1} ms"))
        }
        Ok((status, _)) => (false, format!("status {status}")),
        Err(error) => (false, error.to_string()),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

pub(crate) fn milliseconds(microseconds: u64) -> String {
    format!("{:.2} ms", microseconds as f64 / 1000.0)
}

/// All access-log lines of both ztunnels.
pub(crate) fn access_log(scene: &Scene) -> Vec<Value> {
    let mut lines = scene.ztunnel_a.log();
    lines.extend(scene.ztunnel_b.log());
    lines.retain(|line| line["scope"] == "access");
    lines
}

/// The pairs of identities that the ztunnel of the destination proved, as text.
fn identities(scene: &Scene, from: &Pod, to: &[&Pod]) -> anyhow::Result<Option<String>> {
    let source = from.identity();
    let proved = |to: &&Pod| {
        let destination = to.identity();
        access_log(scene).iter().any(|line| {
            line["direction"] == "inbound"
                && line["src.identity"] == source.as_str()
                && line["dst.identity"] == destination.as_str()
        })
    };
    let found = eventually(Duration::from_secs(5), "the access log tells", || {
        if to.iter().all(proved) { Ok(()) } else { Err("not all lines are there") }
    });
    let names: Vec<_> = to.iter().map(|pod| pod.identity()).collect();
    Ok(found.is_ok().then(|| format!("{source} and {}", names.join(", "))))
}

/// Why the destination's ztunnel refused `from`.
fn denial(scene: &Scene, from: &Pod) -> anyhow::Result<Option<String>> {
    let address = from.ip().to_string();
    let line = eventually(Duration::from_secs(5), "the denial is logged", || {
        let lines = scene.ztunnel_b.log();
        lines
            .into_iter()
            .rev()
            .find(|line| {
                line["direction"] == "inbound"
                    && line["src.addr"].as_str().is_some_and(|from| from.starts_with(&address))
                    && line["error"].is_string()
            })
            .context("no line")
    });
    Ok(line.ok().map(|line| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        format!("{} ({})", text("error"), text("cause"))
    }))
}
