//! A waypoint that ends: what is on its way is finished, and nothing passes without one.

use anyhow::ensure;
use harness::eventually::eventually;
use harness::waypoint::Waypoint;
use rustix::process::Signal;

use super::super::mesh::SOON;
use super::super::suite::Case;
use super::http2;
use super::lab::{APP, Lab};

pub(crate) const CASES: &[Case] = &[
    ("waypoint::ends::requests_on_their_way_are_answered_before_it_ends", &[], drains),
    ("waypoint::ends::a_killed_waypoint_is_not_passed_by", &[], killed),
];

fn drains() -> anyhow::Result<()> {
    let mut lab = Lab::new("ends-drain")?;
    let mut wire = lab.wire(APP)?;
    wire.say("GET /delay/1000 HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut resting = lab.wire(APP)?;
    resting.say("GET /first HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    ensure!(resting.answer("GET")?.status == 200);
    let slow = http2::run(async {
        let mut sender = http2::open(&lab.scene.client, Lab::at(APP)).await?;
        sender.send_request(http2::get("/first")).await?;
        let slow = sender.send_request(http2::get("/delay/1000"));
        let signal = async { lab.scene.waypoint.signal(Signal::TERM).map_err(anyhow::Error::from) };
        let (slow, signalled) = tokio::join!(slow, signal);
        signalled?;
        http2::seen(slow?).await
    })?;
    ensure!(slow.path == "/delay/1000", "{slow:?}");
    let answer = wire.answer("GET")?;
    ensure!(answer.seen()?.path == "/delay/1000", "{answer:?}");
    ensure!(answer.header("connection") == Some("close"), "{answer:?}");
    ensure!(wire.rest()?.is_empty() && resting.rest()?.is_empty());
    let status = lab.scene.waypoint.process().wait(SOON)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn killed() -> anyhow::Result<()> {
    let mut lab = Lab::new("ends-kill")?;
    lab.still_answers()?;
    lab.scene.waypoint.process().kill();
    let answer = Lab::get(APP, "/").from(&lab.scene.client);
    ensure!(answer.is_err(), "{answer:?}");
    let scene = &mut lab.scene;
    scene.waypoint = Waypoint::start(&scene.cluster, &scene.waypoint_pod, &scene.authority)?;
    scene.waypoint.ready(&scene.waypoint_pod)?;
    eventually(SOON, "requests pass again", || lab.still_answers())
}
