//! Who may connect, at the start and later.

use std::time::Duration;

use shared::authz::{Action, Group, Match, Policy, Rule, Scope, StringMatch};
use shared::mesh::{Change, Workload, sample};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::flows::world::{World, run};

/// Policy `name` of namespace `team` about the service account `account`.
fn policy(name: &str, action: Action, scope: Scope, account: &str) -> Change {
    let principal = StringMatch::Exact(format!("cluster.local/ns/team/sa/{account}").into());
    let matching = Match { principals: vec![principal], ..Match::default() };
    let groups = vec![Group { rules: vec![Rule { matches: vec![matching] }] }];
    let key = sample::policy_key(name, "team");
    Policy { key, scope, action, dry_run: false, groups }.into()
}

async fn echoes(socket: &mut TcpStream) -> bool {
    let mut answer = [0];
    socket.write_all(b"x").await.is_ok() && socket.read_exact(&mut answer).await.is_ok()
}

#[tokio::test]
async fn denied_client_is_refused_for_good() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        world.apply([policy("no", Action::Deny, Scope::Namespace, "client")]);
        assert!(!echoes(&mut world.connect(&client, echo).await).await);
        let there = world.caused("PEER_DENIED").await;
        assert!(there.contains("http status: 401 (POLICY_DENIED)"), "{there}");
        let here = world.caused("POLICY_DENIED").await;
        let text = "connection closed due to policy rejection: explicitly denied by: team/no";
        assert!(here.contains(text), "{here}");
        assert_eq!(world.log().matches("POLICY_DENIED\"").count(), 1, "no second attempt");
    })
    .await;
}

#[tokio::test]
async fn change_of_policy_closes_exactly_what_it_denies() {
    run(async {
        let world = World::new();
        let server = world.served("server", 2).await;
        let (one, other) = (world.served("one", 3).await, world.served("other", 4).await);
        let echo = server.echo().await;
        let (mut lost, mut kept) =
            (world.connect(&one, echo).await, world.connect(&other, echo).await);
        assert!(echoes(&mut lost).await && echoes(&mut kept).await);
        world.apply([policy("no", Action::Deny, Scope::Namespace, "one")]);
        let mut byte = [0; 1];
        let closed = tokio::time::timeout(Duration::from_millis(500), lost.read(&mut byte));
        assert!(closed.await.expect("closed in time").is_err(), "reset, not an orderly end");
        assert!(echoes(&mut kept).await);
        let line = world.caused("POLICY_CHANGED").await;
        let text = "connection closed due to policy change: explicitly denied by: team/no";
        assert!(line.contains(text), "{line}");
        assert_eq!(world.part.permits.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn change_of_the_workloads_own_policies_counts() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        world.apply([policy("own", Action::Deny, Scope::WorkloadSelector, "client")]);
        let mut socket = world.connect(&client, echo).await;
        assert!(echoes(&mut socket).await);
        let policies = [sample::policy_key("own", "team")].into();
        world.apply([Workload { policies, ..server.workload() }.into()]);
        world.caused("POLICY_CHANGED").await;
        assert!(socket.read(&mut [0; 1]).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn unrelated_changes_close_nothing() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        let mut socket = world.connect(&client, echo).await;
        assert!(echoes(&mut socket).await);
        world.apply([policy("no", Action::Deny, Scope::Namespace, "somebody")]);
        world.apply([Workload { capacity: 2, ..server.workload() }.into()]);
        world.apply([Change::RemoveWorkload(server.pod.uid.clone())]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(echoes(&mut socket).await);
    })
    .await;
}

#[tokio::test]
async fn plaintext_is_allowed_until_policy_wants_a_peer() {
    run(async {
        let world = World::new();
        let server = world.served("server", 2).await;
        let echo = server.echo().await;
        let mut socket = world.connect_plainly(&server, echo).await;
        assert!(echoes(&mut socket).await);
        world.apply([policy("only", Action::Allow, Scope::Namespace, "client")]);
        assert!(socket.read(&mut [0; 1]).await.is_err());
        assert!(!echoes(&mut world.connect_plainly(&server, echo).await).await);
        let line = world.caused("POLICY_DENIED").await;
        assert!(line.contains("allow policies exist, but none allowed"), "{line}");
        assert!(!line.contains("identity"), "{line}");
    })
    .await;
}

#[tokio::test]
async fn workload_that_wants_its_waypoint_takes_nobody_else() {
    run(async {
        let world = World::new();
        let (client, server) = (world.served("client", 1).await, world.served("server", 2).await);
        let echo = server.echo().await;
        // Without a waypoint of its own there is no way around: the client goes straight to it.
        world.apply([Workload { require_waypoint: true, ..server.workload() }.into()]);
        assert!(!echoes(&mut world.connect(&client, echo).await).await);
        world.caused("WAYPOINT_REQUIRED").await;
        assert!(!echoes(&mut world.connect_plainly(&server, echo).await).await);
    })
    .await;
}
