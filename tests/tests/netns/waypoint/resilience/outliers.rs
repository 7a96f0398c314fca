//! `outlierDetection`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::asking::Ask;
use harness::eventually::eventually;

use super::super::super::mesh::SOON;
use super::super::super::suite::Case;
use super::fleet::Fleet;
use super::{apply, metric};

pub(super) const CASES: &[Case] = &[
    ("waypoint::resilience::outliers::one_that_fails_half_is_left_out_and_returns", &[], half),
    ("waypoint::resilience::outliers::with_all_ejected_there_is_nobody", &[], all_ejected),
];

const RATE: u32 = 500;

/// Spec: one of five fails half of its requests; within 2 s clients see less than 1 % of errors, and
/// within an interval after it is well it is asked again.
fn half() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-half")?;
    let policy = "{outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1s, \
                  maxEjectionPercent: 100}}";
    apply(&fleet.scene, "fleet", policy)?;
    let sick = &fleet.members[2];
    sick.fails(50);
    let first = fleet.load(RATE, 2.0, &[])?;
    ensure!(first.failed() > 0, "it was never asked: {first:?}");
    let second = fleet.load(RATE, 4.0, &[])?;
    let (failed, all) = (second.failed(), second.ok + second.failed());
    ensure!(failed * 100 < all, "{failed} of {all} failed");
    let told = fleet.scene.waypoint.log();
    let ejected = told.iter().find(|line| line["message"] == "endpoint is ejected");
    ensure!(
        ejected.is_some_and(|line| line["endpoint"]
            .as_str()
            .is_some_and(|uid| uid.ends_with(&sick.name))),
        "{ejected:?}"
    );
    let total = metric(&fleet.scene, "culvert_outlier_ejections_total", &["consecutive_5xx"])?;
    ensure!(total >= 1.0, "{total}");
    sick.fails(0);
    let healed = Instant::now();
    let (before, after) = (sick.asked(), fleet.load(RATE, 2.0, &[])?);
    ensure!(after.failed() == 0, "{after:?}");
    // The time of an ejection is an interval here; probes come at once with so many requests.
    let asked = sick.asked() - before;
    ensure!(asked > 5, "asked {asked} times {:?} after it was well", healed.elapsed());
    eventually(SOON, "none is left out", || -> anyhow::Result<()> {
        let out = metric(&fleet.scene, "culvert_outlier_ejections_active", &[])?;
        fleet.load(RATE, 0.2, &[])?;
        ensure!(out == 0.0, "{out}");
        Ok(())
    })?;
    let back = fleet.load(RATE, 2.0, &[])?;
    ensure!(back.servers.contains_key(&sick.name), "{back:?}");
    Ok(())
}

fn all_ejected() -> anyhow::Result<()> {
    let fleet = Fleet::new("outliers-all")?;
    let policy = "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, \
                  maxEjectionPercent: 100}}";
    apply(&fleet.scene, "fleet", policy)?;
    fleet.members.iter().for_each(|member| member.fails(100));
    let ask = || Ask::get(Fleet::at(), "/").from(&fleet.scene.client);
    let answer = eventually(SOON, "nobody is left", || -> anyhow::Result<_> {
        let answer = ask()?;
        ensure!(answer.status == 503, "{answer:?}");
        Ok(answer)
    })?;
    let status = answer.header("proxy-status").unwrap_or_default();
    ensure!(status.contains("NO_HEALTHY_UPSTREAM"), "{answer:?}");
    ensure!(metric(&fleet.scene, "culvert_outlier_ejections_active", &[])? == 5.0);
    let asked: u32 = fleet.members.iter().map(super::fleet::Member::asked).sum();
    ensure!(ask()?.status == 503);
    let now: u32 = fleet.members.iter().map(super::fleet::Member::asked).sum();
    ensure!(now == asked, "one that is ejected was asked");
    // A panic threshold lets them be asked all the same.
    let policy = policy.replace("maxEjectionPercent", "minHealthPercent: 50, maxEjectionPercent");
    apply(&fleet.scene, "fleet", &policy)?;
    fleet.members.iter().for_each(|member| member.fails(0));
    eventually(Duration::from_secs(10), "they are asked", || -> anyhow::Result<()> {
        let answer = ask()?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}
