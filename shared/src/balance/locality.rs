//! Locality: which endpoints a client may use, and which it prefers (spec L4 §3.4).

use crate::mesh::{Balancing, BalancingMode, Scope, Workload};

/// How near `endpoint` is to `client`: the number of leading scopes that are equal.
///
/// When the first scope is the network, another network does not end the count, and the same
/// network outweighs all other scopes together: any endpoint of the client's network comes before
/// all others, and those stay in order of locality.
pub fn rank(scopes: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    let same = |scope: &&Scope| is_same(**scope, client, endpoint);
    match scopes.split_first() {
        Some((Scope::Network, rest)) => {
            let network = usize::from(is_same(Scope::Network, client, endpoint));
            rest.iter().take_while(same).count() + network * scopes.len()
        }
        _ => scopes.iter().take_while(same).count(),
    }
}

/// Keeps the candidates that `balancing` allows `client` to use.
pub fn preferred<T>(
    balancing: Option<&Balancing>,
    client: &Workload,
    mut candidates: Vec<T>,
    workload: impl Fn(&T) -> &Workload,
) -> Vec<T> {
    let Some(Balancing { routing_preferences: scopes, mode }) = balancing else {
        return candidates;
    };
    match mode {
        BalancingMode::Any | BalancingMode::Passthrough => {}
        BalancingMode::Strict => candidates.retain(|candidate| {
            scopes.iter().all(|scope| is_same(*scope, client, workload(candidate)))
        }),
        BalancingMode::Failover => {
            let rank = |candidate: &T| rank(scopes, client, workload(candidate));
            let best = candidates.iter().map(rank).max();
            candidates.retain(|candidate| Some(rank(candidate)) == best);
        }
    }
    candidates
}

/// Plain equality: two unknown values are equal.
fn is_same(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    let (here, there) = (&client.locality, &endpoint.locality);
    match scope {
        Scope::Region => here.region == there.region,
        Scope::Zone => here.zone == there.zone,
        Scope::Subzone => here.subzone == there.subzone,
        Scope::Node => client.node == endpoint.node,
        Scope::Cluster => client.cluster_id == endpoint.cluster_id,
        Scope::Network => client.network == endpoint.network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::sample;

    fn at(network: &str, region: &str, zone: &str, node: &str) -> Workload {
        let mut workload = sample::workload("pod", "ns");
        workload.network = network.into();
        workload.node = node.into();
        workload.locality = sample::locality(region, zone);
        workload
    }

    #[test]
    fn rank_counts_leading_scopes_only() {
        let client = at("", "r1", "z1", "n1");
        let scopes = [Scope::Region, Scope::Zone, Scope::Node];
        assert_eq!(rank(&scopes, &client, &at("", "r1", "z1", "n1")), 3);
        assert_eq!(rank(&scopes, &client, &at("", "r1", "z2", "n1")), 1);
        assert_eq!(rank(&scopes, &client, &at("", "r2", "z1", "n1")), 0);
    }

    #[test]
    fn own_network_comes_before_any_other_and_locality_orders_the_rest() {
        let client = at("a", "r1", "z1", "n1");
        let scopes = [Scope::Network, Scope::Region, Scope::Zone];
        let far_inside = rank(&scopes, &client, &at("a", "r9", "z9", "n9"));
        let near_outside = rank(&scopes, &client, &at("b", "r1", "z1", "n1"));
        let far_outside = rank(&scopes, &client, &at("b", "r9", "z1", "n1"));
        assert!(far_inside > near_outside);
        assert!(near_outside > far_outside);
    }

    #[test]
    fn strict_may_leave_nothing_and_failover_never_does() {
        let client = at("", "r1", "z1", "n1");
        let others = vec![at("", "r2", "z1", "n2"), at("", "r1", "z2", "n3")];
        let mode =
            |mode| Balancing { routing_preferences: [Scope::Region, Scope::Node].into(), mode };
        let keep = |mode_| preferred(Some(&mode(mode_)), &client, others.clone(), |one| one);
        assert!(keep(BalancingMode::Strict).is_empty());
        assert_eq!(keep(BalancingMode::Failover), [others[1].clone()]);
        assert_eq!(keep(BalancingMode::Any).len(), 2);
        assert_eq!(preferred(None, &client, others.clone(), |one| one).len(), 2);
    }
}
