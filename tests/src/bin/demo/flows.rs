//! The flows: what is sent, what came of it, and what the ztunnels say about it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use harness::eventually::eventually;
use harness::pod::Pod;
use harness::role::load;
use serde_json::Value;

use crate::faults;
use crate::market;
use crate::say;
use crate::scene::{LEDGER_PORT, SHOP_PORT, SOON, Scene};

/// What is told about one flow.
pub(crate) struct Flow {
    pub(crate) title: &'static str,
    /// Whether it went as it should.
    pub(crate) good: bool,
    /// What the application saw.
    pub(crate) outcome: String,
    /// Where its bytes went, by the access logs.
    pub(crate) path: String,
    /// Which identities were proved to each other.
    pub(crate) identities: String,
    /// Which policy refused it, and what the log says about that.
    pub(crate) policy: Option<String>,
}

/// Runs all flows, one after the other.
pub(crate) fn run(scene: &mut Scene) -> anyhow::Result<Vec<Flow>> {
    say("\nSending traffic");
    let mut flows = vec![
        shop(scene)?,
        outside_in(scene)?,
        inside_out(scene)?,
        ledger(scene)?,
        intruder(scene)?,
        plain_ledger(scene)?,
    ];
    flows.extend(market::run(scene)?);
    flows.extend(faults::run(scene)?);
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
    let shops = [&scene.shop_v1, &scene.shop_v2];
    let identities = identities(scene, &scene.client, &shops);
    let path = path(scene, &scene.client, &shops);
    Ok(Flow {
        title: "client → shop (HTTP, virtual address)",
        good: report.failed() == 0
            && report.servers.len() == 2
            && identities.is_some()
            && path.is_some(),
        outcome: format!(
            "{} answered ({}), {} failed; p50 {}, p99 {}",
            report.ok,
            shares.join(", "),
            report.failed(),
            milliseconds(report.p50_us),
            milliseconds(report.p99_us)
        ),
        path: path.unwrap_or_else(unseen),
        identities: identities.unwrap_or_else(unseen),
        policy: None,
    })
}

fn ledger(scene: &Scene) -> anyhow::Result<Flow> {
    say("  client → ledger: a protocol where the server speaks first");
    let started = Instant::now();
    let talk = talk(&scene.client, SocketAddr::new(scene.ledger.ip(), LEDGER_PORT), b"hello\r\n");
    let took = started.elapsed();
    let identities = identities(scene, &scene.client, &[&scene.ledger]);
    let path = path(scene, &scene.client, &[&scene.ledger]);
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
        good: good && identities.is_some() && path.is_some(),
        outcome: format!("{heard}; {}", spent(took)),
        path: path.unwrap_or_else(unseen),
        identities: identities.unwrap_or_else(unseen),
        policy: None,
    })
}

fn outside_in(scene: &Scene) -> anyhow::Result<Flow> {
    say("  outsider → shop-v1: from a pod outside the mesh");
    let target = SocketAddr::new(scene.shop_v1.ip(), 8080);
    let (good, outcome) = get(&scene.outsider, target);
    let taken = taken_in(scene, &scene.outsider);
    Ok(Flow {
        title: "outsider → shop-v1 (HTTP)",
        good: good && taken.is_some(),
        outcome,
        path: taken.unwrap_or_else(unseen),
        identities: "none: the caller has no certificate, and the shop is PERMISSIVE".to_owned(),
        policy: None,
    })
}

fn inside_out(scene: &Scene) -> anyhow::Result<Flow> {
    say("  client → outsider: to a pod outside the mesh");
    let target = SocketAddr::new(scene.outsider.ip(), 8080);
    let (good, outcome) = get(&scene.client, target);
    let path = path(scene, &scene.client, &[&scene.outsider]);
    Ok(Flow {
        title: "client → outsider (HTTP)",
        good: good && path.is_some(),
        outcome,
        path: path.unwrap_or_else(unseen),
        identities: "none: the callee is not in the mesh".to_owned(),
        policy: None,
    })
}

fn intruder(scene: &Scene) -> anyhow::Result<Flow> {
    say("  intruder → ledger: a pod of the mesh that policy does not allow");
    let (refused, outcome) = refusal(scene, &scene.intruder);
    let denial = denial(scene, &scene.intruder);
    let path = path(scene, &scene.intruder, &[&scene.ledger]);
    Ok(Flow {
        title: "intruder → ledger",
        good: refused && denial.is_some() && path.is_some(),
        outcome,
        path: path.unwrap_or_else(unseen),
        identities: format!("{} was proved, and is not allowed", scene.intruder.identity()),
        policy: denial.map(|told| {
            format!("AuthorizationPolicy default/ledger-clients allows the client alone; {told}")
        }),
    })
}

fn plain_ledger(scene: &Scene) -> anyhow::Result<Flow> {
    say("  outsider → ledger: plaintext to a pod that demands mutual TLS");
    let (refused, outcome) = refusal(scene, &scene.outsider);
    let denial = denial(scene, &scene.outsider);
    Ok(Flow {
        title: "outsider → ledger",
        good: refused && denial.is_some(),
        outcome,
        path: "plaintext to node-b, captured there, and no further".to_owned(),
        identities: "none: the caller has no certificate".to_owned(),
        policy: denial.map(|told| {
            format!("PeerAuthentication default/strict-ledger demands mutual TLS; {told}")
        }),
    })
}

/// Whether `pod` is refused by the ledger, and how that looks to it.
fn refusal(scene: &Scene, pod: &Pod) -> (bool, String) {
    let started = Instant::now();
    let talked = talk(pod, SocketAddr::new(scene.ledger.ip(), LEDGER_PORT), b"hello\r\n");
    let took = spent(started.elapsed());
    (refused(&talked), format!("{}; {took}", describe_refusal(&talked)))
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
    let started = Instant::now();
    match pod.get(&target.to_string(), "/") {
        Ok((200, body)) => {
            let took = spent(started.elapsed());
            let name = body.split(' ').next().unwrap_or_default().to_owned();
            (true, format!("200 from {name}; {took}"))
        }
        Ok((status, _)) => (false, format!("status {status}")),
        Err(error) => (false, error.to_string()),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn unseen() -> String {
    "not seen".to_owned()
}

fn spent(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
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

/// The first line of the access logs for which `which` holds, as soon as there is one.
fn told(scene: &Scene, which: impl Fn(&Value) -> bool) -> Option<Value> {
    let line = eventually(Duration::from_secs(5), "the access log tells", || {
        access_log(scene).into_iter().find(|line| which(line)).ok_or("no line")
    });
    line.ok()
}

/// The identities that the ztunnels of the destinations had proved to them, as text.
fn identities(scene: &Scene, from: &Pod, to: &[&Pod]) -> Option<String> {
    let source = from.identity();
    for pod in to {
        told(scene, |line| {
            line["direction"] == "inbound"
                && line["src.identity"] == source
                && line["dst.identity"] == pod.identity()
        })?;
    }
    let names: Vec<_> = to.iter().map(|pod| pod.identity()).collect();
    Some(format!("{source} and {}", names.join(", ")))
}

/// What the ztunnel of `from` dialled for each of `to`.
fn path(scene: &Scene, from: &Pod, to: &[&Pod]) -> Option<String> {
    let node = from.node().name();
    let mut ways = Vec::new();
    for pod in to {
        let line = told(scene, |line| {
            line["direction"] == "outbound"
                && line["src.workload"] == from.name()
                && line["dst.workload"] == pod.name()
        })?;
        let (name, dialled) = (pod.name(), line["dst.addr"].as_str()?);
        let place = pod.node().name();
        ways.push(match line["dst.hbone_addr"].as_str() {
            Some(target) => format!("HBONE to {dialled} for {target} ({name}, {place})"),
            None => format!("plaintext to {dialled} ({name}, {place})"),
        });
    }
    Some(format!("ztunnel of {node} → {}", ways.join(" and ")))
}

/// How a pod without a ztunnel reached one that has.
fn taken_in(scene: &Scene, from: &Pod) -> Option<String> {
    let address = from.ip().to_string();
    let line = told(scene, |line| {
        let source = line["src.addr"].as_str();
        line["direction"] == "inbound" && source.is_some_and(|from| from.starts_with(&address))
    })?;
    let (to, name) = (line["dst.addr"].as_str()?, line["dst.workload"].as_str()?);
    Some(format!("plaintext to {to}, taken in by the ztunnel there and given to {name}"))
}

/// What the ledger's ztunnel says about refusing `from`.
fn denial(scene: &Scene, from: &Pod) -> Option<String> {
    let address = from.ip().to_string();
    let line = told(scene, |line| {
        line["direction"] == "inbound"
            && line["dst.workload"] == scene.ledger.name()
            && line["src.addr"].as_str().is_some_and(|from| from.starts_with(&address))
            && line["cause"].is_string()
    })?;
    Some(format!("{} ({})", line["error"].as_str()?, line["cause"].as_str()?))
}
