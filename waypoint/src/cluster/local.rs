//! What one worker remembers about a destination from one picture of the mesh to the next: whose turn
//! it is, which key belongs to whom, who is new.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use shared::balance::{self, Loads, Table};
use shared::mesh::{Balancer, Destination, TrafficPolicy, Warmup};

use crate::cluster::order::Turns;
use crate::upstream::Endpoint;

/// The memory of one destination.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) loads: Loads,
    pub(super) way: Way,
}

/// How its endpoints are chosen.
#[derive(Clone)]
pub(super) enum Way {
    /// By load.
    Load,
    /// Any.
    Random,
    /// In turn.
    Turns(Rc<RefCell<Turns>>),
    /// By the key of the request.
    Key(Rc<Table>),
}

/// The memories of one worker.
#[derive(Default)]
pub(crate) struct Locals {
    known: RefCell<HashMap<Destination, Known>>,
}

struct Known {
    balancer: Balancer,
    addresses: Box<[(SocketAddr, u32)]>,
    local: Local,
}

impl Local {
    /// By the load that all destinations of the worker share.
    pub(super) fn plain(loads: &Loads) -> Self {
        Self { loads: loads.clone(), way: Way::Load }
    }
}

impl Locals {
    /// The memory of a destination under `policy`, which is new for what has changed.
    pub(super) fn of(
        &self,
        destination: Destination,
        policy: &TrafficPolicy,
        endpoints: &[Endpoint],
        loads: &Loads,
    ) -> Local {
        let balancer = &policy.balancer;
        if *balancer == Balancer::default() {
            return Local::plain(loads);
        }
        let weighted = |one: &Endpoint| (one.address, one.workload.capacity);
        let addresses: Box<[_]> = endpoints.iter().map(weighted).collect();
        let mut known = self.known.borrow_mut();
        let old = known.get(&destination).filter(|old| old.balancer == *balancer);
        if let Some(old) = old.filter(|old| old.addresses == addresses) {
            return old.local.clone();
        }
        let kept = old.map(|old| old.local.loads.clone());
        let loads = kept.unwrap_or_else(|| warming(balancer).unwrap_or_else(|| loads.clone()));
        let way = match balancer {
            Balancer::LeastRequest(_) => Way::Load,
            Balancer::Random => Way::Random,
            Balancer::RoundRobin(_) => Way::Turns(Rc::new(RefCell::new(Turns::new(&addresses)))),
            Balancer::Hash { table, .. } => {
                let named = |(address, weight): &(SocketAddr, u32)| (address.to_string(), *weight);
                let names: Vec<_> = addresses.iter().map(named).collect();
                Way::Key(Rc::new(Table::new(*table, &names)))
            }
        };
        let local = Local { loads, way };
        let (balancer, kept) = (balancer.clone(), local.clone());
        known.insert(destination, Known { balancer, addresses, local: kept });
        local
    }

    /// Forgets destinations that `stays` denies.
    pub(crate) fn sweep(&self, stays: impl Fn(&Destination) -> bool) {
        self.known.borrow_mut().retain(|destination, _| stays(destination));
    }
}

/// Loads of its own, for a destination whose new endpoints grow as its rule says.
fn warming(balancer: &Balancer) -> Option<Loads> {
    let (Balancer::LeastRequest(warmup) | Balancer::RoundRobin(warmup)) = balancer else {
        return None;
    };
    let Warmup { duration, least, aggression } = (*warmup)?;
    Some(Loads::new(balance::Config {
        slow_start: duration,
        // Envoy: never nothing, or it would never be known.
        slow_start_share: least.as_f64().max(0.01),
        slow_start_power: 1_000.0 / f64::from(aggression.max(1)),
        ..balance::Config::default()
    }))
}
