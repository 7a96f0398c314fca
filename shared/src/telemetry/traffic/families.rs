//! All label sets of the process, and their families as a scrape sees them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};

use super::labels::{FLAGS, NAMES, Owned, ResponseFlag};
use super::{Counters, Error};
use crate::telemetry::metrics::family;
use crate::telemetry::process::describe;

const OPENED: (&str, &str) = ("istio_tcp_connections_opened_total", "Connections opened.");
const CLOSED: (&str, &str) = ("istio_tcp_connections_closed_total", "Connections closed.");
const RECEIVED: (&str, &str) =
    ("istio_tcp_received_bytes_total", "Bytes that the initiator of a connection sent.");
const SENT: (&str, &str) =
    ("istio_tcp_sent_bytes_total", "Bytes that the responder of a connection sent.");
const FAILED: (&str, &str) =
    ("istio_tcp_connections_failed_total", "Connections that failed (unstable).");

/// Label sets by their values. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Families {
    sets: Arc<Mutex<HashMap<Owned, Known>>>,
    descriptions: Arc<[Desc]>,
}

#[derive(Debug, Default)]
struct Known {
    counters: Arc<Counters>,
    /// Read since no worker holds it: nothing would be lost without it.
    read_unused: bool,
}

impl Families {
    pub(super) fn new() -> Result<Self, Error> {
        let descriptions: Result<Vec<Desc>, Error> = [OPENED, CLOSED, RECEIVED, SENT, FAILED]
            .iter()
            .map(|(name, help)| describe(name, help, &NAMES))
            .collect();
        Ok(Self { sets: Arc::default(), descriptions: descriptions?.into() })
    }

    /// The counters of these labels, shared with the other workers.
    pub(super) fn counters(&self, labels: &Owned) -> Arc<Counters> {
        match self.sets.lock().entry(labels.clone()) {
            Entry::Occupied(mut known) => {
                known.get_mut().read_unused = false;
                known.get().counters.clone()
            }
            Entry::Vacant(place) => place.insert(Known::default()).counters.clone(),
        }
    }
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let [mut opened, mut closed, mut received, mut sent, mut failed] =
            [const { Vec::new() }; 5];
        let mut sets = self.sets.lock();
        sets.retain(|_, known| {
            let unused = Arc::strong_count(&known.counters) == 1;
            let keep = !(unused && known.read_unused);
            known.read_unused = unused;
            keep
        });
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (labels, Known { counters, .. }) in sets.iter() {
            let none = ResponseFlag::None;
            if read(&counters.opened) > 0 {
                opened.push(sample(labels, none, read(&counters.opened)));
                received.push(sample(labels, none, read(&counters.received_bytes)));
                sent.push(sample(labels, none, read(&counters.sent_bytes)));
            }
            for flag in ResponseFlag::ALL {
                for (into, from) in
                    [(&mut closed, &counters.closed), (&mut failed, &counters.failed)]
                {
                    let value = read(&from[flag.index()]);
                    if value > 0 {
                        into.push(sample(labels, flag, value));
                    }
                }
            }
        }
        drop(sets);
        [(OPENED, opened), (CLOSED, closed), (RECEIVED, received), (SENT, sent), (FAILED, failed)]
            .into_iter()
            .map(|((name, help), samples)| family(name, help, MetricType::COUNTER, samples))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "the text format has no other numbers")]
fn sample(labels: &Owned, flag: ResponseFlag, value: u64) -> Metric {
    let pairs = NAMES.iter().zip(labels).enumerate().map(|(index, (name, value))| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(match &**value {
            _ if index == FLAGS => flag.as_str().to_owned(),
            "" => "unknown".to_owned(),
            known => known.to_owned(),
        });
        pair
    });
    let mut metric = Metric::from_label(pairs.collect());
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}
