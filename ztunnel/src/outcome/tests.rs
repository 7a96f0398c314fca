use std::collections::BTreeSet;

use super::*;

/// Other parts of the program document causes of their own below this heading.
const CONNECTIONS: &str = include_str!("../../../docs/causes.md");

fn documented() -> BTreeSet<&'static str> {
    let connections = CONNECTIONS.split("## Requests and tunnels").next().unwrap_or_default();
    let rows = connections.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

#[test]
fn every_cause_is_documented_and_every_documented_cause_exists() {
    let known: BTreeSet<_> = Outcome::ALL.iter().map(Outcome::code).collect();
    assert_eq!(known.len(), Outcome::ALL.len());
    assert_eq!(known, documented());
}

#[test]
fn peers_see_only_the_three_statuses_of_the_protocol() {
    for outcome in Outcome::ALL {
        assert!(matches!(outcome.status().as_u16(), 400 | 401 | 503), "{outcome:?}");
    }
}

#[test]
fn answers_of_the_destination_itself_are_final() {
    for outcome in [Outcome::PEER_DENIED, Outcome::PEER_REJECTED_TARGET] {
        assert_eq!(outcome.retry(), Retry::Never);
    }
    assert_ne!(Outcome::PEER_UNAVAILABLE.retry(), Retry::Never);
}

#[test]
fn policy_is_the_only_cause_of_the_deny_flag() {
    for outcome in Outcome::ALL {
        let by_policy =
            outcome.code().starts_with("POLICY") || *outcome == Outcome::WAYPOINT_REQUIRED;
        assert_eq!(outcome.flag() == ResponseFlag::Denied, by_policy, "{outcome:?}");
    }
}
