//! `loadBalancer`, and what holds without one.

use anyhow::ensure;

use super::super::super::suite::Case;
use super::fleet::Fleet;

pub(super) const CASES: &[Case] =
    &[("waypoint::resilience::balancing::one_that_is_ten_times_slower_gets_little", &[], slow)];

/// Spec: one of five takes ten times as long; after 5 s it gets at most a tenth of the requests.
fn slow() -> anyhow::Result<()> {
    let fleet = Fleet::new("balancing-slow")?;
    fleet.members.iter().for_each(|member| member.dawdles(5));
    fleet.members[1].dawdles(50);
    let report = fleet.load(200, 4.0, &["--warm-up", "5"])?;
    ensure!(report.failed() == 0, "{report:?}");
    let slow = report.servers.get(&fleet.members[1].name).copied().unwrap_or_default();
    let all: u64 = report.servers.values().sum();
    ensure!(slow * 10 <= all, "{slow} of {all}: {:?}", report.servers);
    Ok(())
}
