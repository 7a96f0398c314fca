//! What the measured proxies cost in a cluster: arithmetic over the figures of one run, nothing
//! else. Sidecars: one per pod. Culvert: one per node.
//!
//! ```text
//! memory  sidecars   pods × anonymous + nodes × file-backed      (pods of a node share the program's pages)
//!         per node   nodes × (anonymous + file-backed)
//! cores   pods × requests per second and pod × CPU per request of both sides
//! ```
//! Both measured at the steady rate; CPU per request from the measured rate that is nearest to what
//! one proxy would carry. What grows with the size of the mesh or with open connections is left out.

use super::cell::Cell;
use super::cost::Cost;
use super::mode::Mode;
use super::record::Record;
use super::summary::group;
use super::table::STEADY;

/// Requests that each pod sends in a second.
pub(super) const RATE: u32 = 100;
/// Pods and nodes.
pub(super) const SIZES: [(u32, u32); 4] = [(100, 10), (100, 100), (1_000, 10), (1_000, 100)];

/// Who has a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Pod,
    Node,
}

/// The data planes of which there are proxies in a cluster.
const PLANES: [(Mode, Per); 2] = [(Mode::Sidecar, Per::Pod), (Mode::CulvertL4, Per::Node)];

/// What one data plane costs in one cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bill {
    pub(super) mode: Mode,
    pub(super) pods: u32,
    pub(super) nodes: u32,
    /// Memory of all proxies.
    pub(super) gib: f64,
    /// CPU of all proxies.
    pub(super) cores: f64,
    /// The measurement that the CPU per request is from.
    pub(super) basis: Cell,
}

/// The bills of every size, as far as the figures are there.
pub(super) fn bills(record: &Record) -> Vec<Bill> {
    let all = SIZES.iter().flat_map(|size| PLANES.iter().map(move |plane| (*size, *plane)));
    all.filter_map(|((pods, nodes), (mode, per))| bill(record, mode, per, pods, nodes)).collect()
}

fn bill(record: &Record, mode: Mode, per: Per, pods: u32, nodes: u32) -> Option<Bill> {
    let steady = group(record, STEADY, mode)?;
    let proxies: Vec<&Cost> =
        steady.first().costs.iter().filter(|cost| cost.part.is_proxy()).collect();
    // The mean of the two sides: a pod is client and server.
    let mean = |figure: fn(&Cost) -> u64| {
        proxies.iter().map(|cost| figure(cost) as f64).sum::<f64>() / proxies.len().max(1) as f64
    };
    let anonymous = mean(|cost| cost.anonymous_kib);
    let backed = mean(|cost| cost.rss_kib.saturating_sub(cost.anonymous_kib));
    let (pods_f, nodes_f) = (f64::from(pods), f64::from(nodes));
    let kib = match per {
        Per::Pod => pods_f * anonymous + nodes_f.min(pods_f) * backed,
        Per::Node => nodes_f * (anonymous + backed),
    };
    let carried = match per {
        Per::Pod => f64::from(RATE),
        Per::Node => f64::from(RATE) * pods_f / nodes_f,
    };
    let basis = nearest(record, mode, carried)?;
    let cpu_us = group(record, basis, mode)?.proxy_cpu_us()?.median;
    Some(Bill {
        mode,
        pods,
        nodes,
        gib: kib / 1024.0 / 1024.0,
        cores: pods_f * f64::from(RATE) * cpu_us / 1e6,
        basis,
    })
}

/// The measured rate that is nearest to `carried`, among those that were held.
fn nearest(record: &Record, mode: Mode, carried: f64) -> Option<Cell> {
    let distance = |cell: &Cell| match cell {
        Cell::Open { rate, connections: 16 } => Some((f64::from(*rate) / carried).ln().abs()),
        _ => None,
    };
    let held = |cell: &Cell| group(record, *cell, mode).is_some_and(|group| !group.is_saturated());
    let cells = Cell::all().into_iter().filter(held);
    cells
        .filter_map(|cell| Some((distance(&cell)?, cell)))
        .min_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, cell)| cell)
}

#[cfg(test)]
mod tests {
    use super::super::record::sample;
    use super::*;

    #[test]
    fn sidecars_count_by_pod_and_ztunnels_by_node() {
        let mut record = sample::record();
        let rates = [1_000, 3_200];
        for mode in [Mode::Sidecar, Mode::CulvertL4] {
            for rate in rates {
                let cell = Cell::Open { rate, connections: 16 };
                record.samples.push(sample::closed(mode, cell, rate.into()));
            }
        }
        let bills = bills(&record);
        let find = |mode, pods, nodes| {
            let mut fits = bills
                .iter()
                .filter(|bill| (bill.mode, bill.pods, bill.nodes) == (mode, pods, nodes));
            fits.next().expect("every size has a bill")
        };
        // 8 MiB anonymous, 4 MiB backed by files; 40 µs per request and side.
        let sidecars = find(Mode::Sidecar, 1_000, 10);
        assert_eq!(sidecars.gib, (1_000.0 * 8.0 + 10.0 * 4.0) / 1024.0);
        assert_eq!(sidecars.basis, Cell::Open { rate: 1_000, connections: 16 });
        let ztunnels = find(Mode::CulvertL4, 1_000, 10);
        assert_eq!(ztunnels.gib, 10.0 * 12.0 / 1024.0);
        assert_eq!(ztunnels.basis, STEADY);
        for bill in [sidecars, ztunnels] {
            assert!((bill.cores - 8.0).abs() < 1e-9, "{bill:?}");
        }
    }

    #[test]
    fn a_rate_that_was_not_held_is_no_basis() {
        let mut record = sample::record();
        record.samples.push(sample::closed(Mode::Sidecar, STEADY, 1_000));
        assert_eq!(bills(&record), []);
    }
}
