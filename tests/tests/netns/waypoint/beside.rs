//! The same requests to our waypoint and to an Envoy with the settings of Istio's: what reaches the
//! application, and how it is framed there, must be the same, or explained.
//!
//! The explanations are the table of `docs/envoy-differences.md`. A difference that is not in it fails, and
//! so does a row that nothing shows any more.

mod shapes;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::backend::{Backend, Guest};
use harness::peers::Envoy;
use harness::pod::Pod;
use harness::wire::{Heard, Wire};

use super::super::suite::Case;
use super::lab::{HTTP, Lab};
use shapes::Shape;

pub(crate) const CASES: &[Case] =
    &[("waypoint::beside::what_envoy_lets_through_is_let_through_alike", &["envoy"], alike)];

const TABLE: &str = include_str!("../../../../docs/envoy-differences.md");
/// An answer that is bound to come has come by then, also on a busy machine.
const ANSWER: Duration = Duration::from_millis(1500);
/// One that may come after another.
const NEXT: Duration = Duration::from_millis(50);

/// What reached the application: each request with its framing.
type Passed = Vec<String>;

fn alike() -> anyhow::Result<()> {
    let lab = Lab::new("beside-envoy")?;
    let client = &lab.scene.client;
    let ours = lab.backend(HTTP, answer)?;
    let theirs = Backend::start(client, Envoy::APPLICATION.parse::<SocketAddr>()?.port(), answer)?;
    let _envoy = Envoy::http(client)?;
    let shapes = shapes::all();
    ensure!(shapes.len() >= 300, "{} shapes", shapes.len());
    let mut differences = BTreeMap::new();
    for shape in &shapes {
        let here = passed(client, Lab::at(HTTP), shape, &ours)?;
        let there = passed(client, Envoy::HTTP.parse()?, shape, &theirs)?;
        if here != there {
            differences.insert(shape.name.clone(), (here, there));
        }
    }
    explained(differences)
}

fn explained(mut differences: BTreeMap<String, (Passed, Passed)>) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (names, here, there) in rows() {
        let all: Vec<&str> = names.split(' ').collect();
        for name in all {
            match differences.remove(name) {
                None => wrong.push(format!("{name} is explained, and there is no difference")),
                Some((ours, theirs)) => {
                    for (who, said, seen) in [("here", here, &ours), ("Envoy", there, &theirs)] {
                        let passes = said != "refused";
                        if passes == seen.is_empty() {
                            wrong.push(format!("{name}: {who} is said to be {said}: {seen:?}"));
                        }
                    }
                }
            }
        }
    }
    let unexplained = differences.iter();
    wrong.extend(unexplained.map(|(name, (ours, theirs))| {
        format!("{name} is not explained: here {ours:?}, Envoy {theirs:?}")
    }));
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Shapes, what happens here, what happens with Envoy.
fn rows() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    TABLE.lines().filter(|line| line.starts_with("| `")).filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let names = cells.next()?.replace('`', "");
        Some((names, cells.next()?, cells.next()?))
    })
}

fn answer(guest: &mut Guest) -> io::Result<()> {
    while guest.request()?.is_some() {
        guest.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// Sends a shape on a connection of its own; what of it reached the application.
fn passed(
    client: &Pod,
    to: SocketAddr,
    shape: &Shape,
    application: &Backend,
) -> anyhow::Result<Passed> {
    let before = application.heard().len();
    let mut wire = Wire::open(client, to).with_context(|| shape.name.clone())?;
    // A proxy that refuses early does not read the rest.
    let _ = wire.say(&shape.bytes);
    let mut patience = ANSWER;
    loop {
        wire.stream()?.set_read_timeout(Some(patience))?;
        let method = if shape.bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        match wire.answer(method) {
            Ok(interim) if interim.status < 200 => {}
            Ok(_) => patience = NEXT,
            Err(_) => break,
        }
    }
    Ok(application.heard()[before..].iter().map(shown).collect())
}

/// A request as far as its framing goes, and where it wants to go.
fn shown(heard: &Heard) -> String {
    let line = heard.head.lines().next().unwrap_or_default();
    let framing = match (heard.header("transfer-encoding"), heard.header("content-length")) {
        (Some(coding), Some(length)) => format!("{coding} and {length}"),
        (Some(coding), None) => coding.to_owned(),
        // RFC 9112 §6.3: in a request both say that there is no body.
        (None, Some("0") | None) => "no body".to_owned(),
        (None, Some(length)) => length.to_owned(),
    };
    let line: String = line.chars().take(80).collect();
    let host = heard.header("host").unwrap_or("-").to_owned();
    let body = String::from_utf8_lossy(&heard.body[..heard.body.len().min(40)]).into_owned();
    format!("{line} of {host}, {framing}: {body}")
}
