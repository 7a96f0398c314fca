//! Who may connect, at the start and later.

use anyhow::ensure;
use shared::authz::{Action, Group, Match, Policy, Rule, Scope, StringMatch};
use shared::mesh::{Change, Workload, sample};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use ztunnel::outcome::Outcome;

use crate::inproc::flows::world::{TestPod, World};
use crate::inproc::log::{Log, SOON};
use crate::inproc::suite::cases;

cases! {
    "flows::denied_client_is_refused_for_good":
        [POLICY_DENIED, PEER_DENIED] => denied_client_is_refused_for_good;
    "flows::change_of_policy_closes_exactly_what_it_denies":
        [POLICY_CHANGED] => change_of_policy_closes_exactly_what_it_denies;
    "flows::change_of_the_workloads_own_policies_counts":
        [POLICY_CHANGED] => change_of_the_workloads_own_policies_counts;
    "flows::unrelated_changes_close_nothing": [POLICY_CHANGED] => unrelated_changes_close_nothing;
    "flows::plaintext_is_allowed_until_policy_wants_a_peer":
        [POLICY_DENIED] => plaintext_is_allowed_until_policy_wants_a_peer;
    "flows::workload_that_wants_its_waypoint_takes_nobody_else":
        [WAYPOINT_REQUIRED] => workload_that_wants_its_waypoint_takes_nobody_else;
}

/// Policy `name` of namespace `team` about the service account `account`.
fn policy(name: &str, action: Action, scope: Scope, account: &str) -> Change {
    let principal = StringMatch::Exact(format!("cluster.local/ns/team/sa/{account}").into());
    let matching = Match { principals: vec![principal], ..Match::default() };
    let groups = vec![Group { rules: vec![Rule { matches: vec![matching] }] }];
    let key = sample::policy_key(name, "team");
    Policy { key, scope, targets: Box::default(), action, dry_run: false, groups }.into()
}

async fn echoes(socket: &mut TcpStream) -> bool {
    let mut answer = [0];
    socket.write_all(b"x").await.is_ok() && socket.read_exact(&mut answer).await.is_ok()
}

/// Cut, and not as if the other side had finished.
async fn is_reset(socket: &mut TcpStream) -> anyhow::Result<()> {
    let read = timeout(SOON, socket.read(&mut [0])).await?;
    ensure!(read.is_err(), "{read:?}");
    Ok(())
}

async fn client_and_server(world: &World) -> anyhow::Result<(TestPod, TestPod)> {
    Ok((world.served("client", 1).await?, world.served("server", 2).await?))
}

async fn denied_client_is_refused_for_good(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    world.apply([policy("no", Action::Deny, Scope::Namespace, "client")]);
    ensure!(!echoes(&mut world.connect(&client, echo).await?).await);
    log.tells(Outcome::PEER_DENIED, "http status: 401 (POLICY_DENIED)").await?;
    let text = "connection closed due to policy rejection: explicitly denied by: team/no";
    log.tells(Outcome::POLICY_DENIED, text).await?;
    ensure!(log.text().matches("POLICY_DENIED\"").count() == 1, "no second attempt");
    Ok(())
}

async fn change_of_policy_closes_exactly_what_it_denies(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let server = world.served("server", 2).await?;
    let (one, other) = (world.served("one", 3).await?, world.served("other", 4).await?);
    let echo = server.echo().await?;
    let (mut lost, mut kept) =
        (world.connect(&one, echo).await?, world.connect(&other, echo).await?);
    ensure!(echoes(&mut lost).await && echoes(&mut kept).await);
    world.apply([policy("no", Action::Deny, Scope::Namespace, "one")]);
    is_reset(&mut lost).await?;
    ensure!(echoes(&mut kept).await);
    log.tells(Outcome::POLICY_CHANGED, "connection closed due to policy change").await?;
    ensure!(world.part.permits.len() == 1);
    Ok(())
}

async fn change_of_the_workloads_own_policies_counts(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    world.apply([policy("own", Action::Deny, Scope::WorkloadSelector, "client")]);
    let mut socket = world.connect(&client, echo).await?;
    ensure!(echoes(&mut socket).await);
    let policies = [sample::policy_key("own", "team")].into();
    world.apply([Workload { policies, ..server.workload() }.into()]);
    log.tells(Outcome::POLICY_CHANGED, "connection closed due to policy change").await?;
    is_reset(&mut socket).await?;
    Ok(())
}

async fn unrelated_changes_close_nothing(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    let thief = world.served("thief", 3).await?;
    let mut socket = world.connect(&client, echo).await?;
    let mut watched = world.connect(&thief, echo).await?;
    ensure!(echoes(&mut socket).await && echoes(&mut watched).await);
    world.apply([Workload { capacity: 2, ..server.workload() }.into()]);
    world.apply([Change::RemoveWorkload(server.pod.uid.clone())]);
    world.apply([policy("no", Action::Deny, Scope::Namespace, "thief")]);
    // Once this one is cut, all connections have been decided again.
    is_reset(&mut watched).await?;
    ensure!(echoes(&mut socket).await);
    Ok(())
}

async fn plaintext_is_allowed_until_policy_wants_a_peer(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let server = world.served("server", 2).await?;
    let echo = server.echo().await?;
    let mut socket = world.connect_plainly(&server, echo).await?;
    ensure!(echoes(&mut socket).await);
    world.apply([policy("only", Action::Allow, Scope::Namespace, "client")]);
    is_reset(&mut socket).await?;
    ensure!(!echoes(&mut world.connect_plainly(&server, echo).await?).await);
    let text = "allow policies exist, but none allowed";
    let line = log.tells(Outcome::POLICY_DENIED, text).await?;
    ensure!(!line.contains("identity"), "{line}");
    Ok(())
}

async fn workload_that_wants_its_waypoint_takes_nobody_else(log: Log) -> anyhow::Result<()> {
    let world = World::new(&log)?;
    let (client, server) = client_and_server(&world).await?;
    let echo = server.echo().await?;
    // Without a waypoint of its own there is no way around: the client goes straight to it.
    world.apply([Workload { require_waypoint: true, ..server.workload() }.into()]);
    ensure!(!echoes(&mut world.connect(&client, echo).await?).await);
    log.tells(Outcome::WAYPOINT_REQUIRED, "only the workload's waypoint may connect").await?;
    ensure!(!echoes(&mut world.connect_plainly(&server, echo).await?).await);
    Ok(())
}
