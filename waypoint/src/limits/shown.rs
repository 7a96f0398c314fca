//! Rate limits as metrics and in `/config_dump`.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde_json::{Value, json};
use shared::telemetry::metrics::{Error, Registry, family};

use super::{Limiter, Limiters, Scope};

const LIMITED: (&str, &str) =
    ("culvert_rate_limited_total", "Requests that a rate limit has refused.");
const CALLERS: (&str, &str) =
    ("culvert_rate_limit_callers", "Callers that have not all their tokens.");

impl Limiters {
    /// Makes their numbers visible.
    ///
    /// # Errors
    /// They are visible already.
    pub fn register(&self, registry: &Registry) -> Result<(), Error> {
        let describe = |(name, help): (&str, &str)| {
            Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())
        };
        let families = vec![describe(LIMITED)?, describe(CALLERS)?];
        registry.register(Shown { limiters: self.clone(), families })
    }

    /// For `/config_dump`.
    pub fn dump(&self) -> Value {
        let one = |limiter: &Limiter| {
            let refused = Scope::ALL.map(|scope| (scope.name().to_owned(), limiter.refused(scope)));
            json!({
                "owner": limiter.owner().to_string(),
                "limits": limiter.limits(),
                "refused": refused.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                "callers": limiter.callers().len(),
            })
        };
        self.list().iter().map(|limiter| one(limiter)).collect()
    }
}

struct Shown {
    limiters: Limiters,
    families: Vec<Desc>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "the exposition has no other numbers")]
    fn collect(&self) -> Vec<MetricFamily> {
        let (mut limited, mut callers) = (Vec::new(), Vec::new());
        for limiter in self.limiters.list() {
            for scope in Scope::ALL {
                let mut counter = Counter::default();
                counter.set_value(limiter.refused(scope) as f64);
                let mut metric = labelled(&limiter, Some(scope));
                metric.set_counter(counter);
                limited.push(metric);
            }
            if limiter.limits().per_caller.is_some() {
                let mut gauge = Gauge::default();
                gauge.set_value(limiter.callers().len() as f64);
                let mut metric = labelled(&limiter, None);
                metric.set_gauge(gauge);
                callers.push(metric);
            }
        }
        vec![
            family(LIMITED.0, LIMITED.1, MetricType::COUNTER, limited),
            family(CALLERS.0, CALLERS.1, MetricType::GAUGE, callers),
        ]
    }
}

fn labelled(limiter: &Limiter, scope: Option<Scope>) -> Metric {
    let (kind, namespace, name) = limiter.owner().names();
    let scope = scope.map(|scope| ("scope", scope.name()));
    let own = [("kind", kind), ("namespace", namespace), ("name", name)];
    let labels = own.into_iter().chain(scope).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    metric
}
