//! The metrics of this process, and the two texts in which they are given out.
//!
//! Invariants: families without samples are left out; counters end in `_total` in both texts.
//! Source: Prometheus exposition format 0.0.4; OpenMetrics 1.0.

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// A metric cannot be registered or written.
#[derive(Debug, thiserror::Error)]
#[error("registering or writing metrics")]
pub struct Error(#[from] prometheus::Error);

/// All metrics of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    metrics: prometheus::Registry,
}

/// The text in which metrics are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics text 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// `OpenMetrics` only for those who ask for it in their `accept` header.
    #[must_use]
    pub fn accepted_by(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// Value of the `content-type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text;charset=utf-8;version=1.0.0",
        }
    }
}

impl Registry {
    /// Adds a family, or several.
    ///
    /// # Errors
    /// A family of that name is there already.
    pub fn register(&self, collector: impl Collector + 'static) -> Result<(), Error> {
        Ok(self.metrics.register(Box::new(collector))?)
    }

    /// Adds families whose kinds are not known here.
    ///
    /// # Errors
    /// A family of that name is there already.
    pub fn register_all(&self, collectors: Vec<Box<dyn Collector>>) -> Result<(), Error> {
        Ok(collectors.into_iter().try_for_each(|collector| self.metrics.register(collector))?)
    }

    /// All samples of this moment as text.
    ///
    /// # Errors
    /// A family is malformed.
    pub fn expose(&self, exposition: Exposition) -> Result<String, Error> {
        let families = self.metrics.gather();
        match exposition {
            Exposition::OpenMetrics => Ok(open_metrics(&families)),
            Exposition::Prometheus => {
                let mut text = Vec::new();
                TextEncoder::new().encode(&families, &mut text)?;
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }
}

/// Gauge and counter families out of plain numbers, for collectors that measure when asked.
#[must_use]
pub fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

fn open_metrics(families: &[MetricFamily]) -> String {
    let mut text = String::with_capacity(64 * 1024);
    for family in families {
        let (name, kind) = match family.get_field_type() {
            MetricType::COUNTER => {
                (family.name().strip_suffix("_total").unwrap_or_else(|| family.name()), "counter")
            }
            MetricType::GAUGE => (family.name(), "gauge"),
            MetricType::HISTOGRAM => (family.name(), "histogram"),
            MetricType::SUMMARY => (family.name(), "summary"),
            MetricType::UNTYPED => (family.name(), "unknown"),
        };
        line(
            &mut text,
            format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(family.help())),
        );
        for metric in family.get_metric() {
            sample(&mut text, name, family.get_field_type(), metric);
        }
    }
    text.push_str("# EOF\n");
    text
}

fn sample(text: &mut String, name: &str, kind: MetricType, metric: &Metric) {
    let labels = labels(metric);
    match kind {
        MetricType::COUNTER => {
            value(text, name, "_total", &labels, metric.get_counter().get_value());
        }
        MetricType::GAUGE => value(text, name, "", &labels, metric.get_gauge().get_value()),
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let mut previous = String::new();
            for bucket in histogram.get_bucket() {
                let bound = bucket.upper_bound();
                let bound = if bound.is_infinite() { "+Inf".to_owned() } else { bound.to_string() };
                bucket_line(text, name, &labels, &bound, bucket.cumulative_count());
                previous = bound;
            }
            if previous != "+Inf" {
                bucket_line(text, name, &labels, "+Inf", histogram.get_sample_count());
            }
            line(text, format_args!("{name}_count{labels} {}\n", histogram.get_sample_count()));
            value(text, name, "_sum", &labels, histogram.get_sample_sum());
        }
        // Nothing in this program makes these.
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

fn value(text: &mut String, name: &str, suffix: &str, labels: &str, value: f64) {
    line(text, format_args!("{name}{suffix}{labels} {value}\n"));
}

fn bucket_line(text: &mut String, name: &str, labels: &str, bound: &str, count: u64) {
    let others = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let separator = if others.is_some() { "," } else { "" };
    let others = others.unwrap_or_default();
    line(text, format_args!("{name}_bucket{{{others}{separator}le=\"{bound}\"}} {count}\n"));
}

fn labels(metric: &Metric) -> String {
    let mut text = String::new();
    for (index, label) in metric.get_label().iter().enumerate() {
        text.push(if index == 0 { '{' } else { ',' });
        line(&mut text, format_args!("{}=\"{}\"", label.name(), escaped(label.value())));
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};

    use super::*;

    fn registry() -> Registry {
        let registry = Registry::default();
        let requests =
            IntCounterVec::new(Opts::new("requests_total", "All \"of\" them."), &["path"]).unwrap();
        requests.with_label_values(&["/a\"b\\c\nd"]).inc_by(3);
        let empty = IntCounterVec::new(Opts::new("nothing_total", "None."), &["x"]).unwrap();
        let open = IntGauge::new("open", "Open.").unwrap();
        open.set(2);
        let time =
            Histogram::with_opts(HistogramOpts::new("time_seconds", "Time.").buckets(vec![0.5]))
                .unwrap();
        time.observe(0.25);
        time.observe(2.0);
        registry.register(requests).unwrap();
        registry.register(empty).unwrap();
        registry.register(open).unwrap();
        registry.register(time).unwrap();
        registry
    }

    #[test]
    fn open_metrics_text_is_complete() {
        let text = registry().expose(Exposition::OpenMetrics).unwrap();
        let expected = "# HELP open Open.\n# TYPE open gauge\nopen 2\n\
            # HELP requests All \\\"of\\\" them.\n# TYPE requests counter\n\
            requests_total{path=\"/a\\\"b\\\\c\\nd\"} 3\n\
            # HELP time_seconds Time.\n# TYPE time_seconds histogram\n\
            time_seconds_bucket{le=\"0.5\"} 1\ntime_seconds_bucket{le=\"+Inf\"} 2\n\
            time_seconds_count 2\ntime_seconds_sum 2.25\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn prometheus_text_is_the_default_and_leaves_empty_families_out() {
        let text = registry().expose(Exposition::accepted_by(None)).unwrap();
        assert!(text.contains("# TYPE requests_total counter\nrequests_total{path="));
        assert!(!text.contains("nothing"));
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn open_metrics_is_given_to_those_who_ask() {
        let scraper = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(Exposition::accepted_by(Some(scraper)), Exposition::OpenMetrics);
        assert_eq!(Exposition::accepted_by(Some("*/*")), Exposition::Prometheus);
    }

    #[test]
    fn a_second_family_of_the_same_name_is_refused() {
        let registry = registry();
        assert!(registry.register(IntGauge::new("open", "Again.").unwrap()).is_err());
    }
}
