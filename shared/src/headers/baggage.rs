//! `baggage`: the workload at the other end, as that end describes itself.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::mesh::{Workload, WorkloadType};

/// The header's name.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Longer values are ignored: they become metric labels, and no name in a mesh is longer.
const LONGEST_VALUE_BYTES: usize = 253;

/// What a peer says about its workload. Labels only, never a reason to allow anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage {
    /// `k8s.cluster.name`
    pub cluster: Option<Box<str>>,
    /// `k8s.namespace.name`
    pub namespace: Option<Box<str>>,
    /// `k8s.deployment.name`, `k8s.cronjob.name`, `k8s.pod.name` or `k8s.job.name`
    pub workload: Option<Box<str>>,
    /// `service.name`
    pub service: Option<Box<str>>,
    /// `service.version`
    pub version: Option<Box<str>>,
    /// `cloud.region`
    pub region: Option<Box<str>>,
    /// `cloud.availability_zone`
    pub zone: Option<Box<str>>,
}

impl Baggage {
    /// The header value that describes `workload`: fixed order, empty values left out.
    /// A value that the format cannot carry (it has no escapes) is left out as well.
    pub fn describe(workload: &Workload) -> HeaderValue {
        let kind = match workload.workload_type {
            WorkloadType::Deployment => "k8s.deployment.name",
            WorkloadType::CronJob => "k8s.cronjob.name",
            WorkloadType::Pod => "k8s.pod.name",
            WorkloadType::Job => "k8s.job.name",
        };
        let pairs = [
            ("k8s.cluster.name", &*workload.cluster_id),
            ("k8s.namespace.name", workload.namespace()),
            (kind, &*workload.workload_name),
            ("service.name", &*workload.canonical_name),
            ("service.version", &*workload.canonical_revision),
            ("cloud.region", &*workload.locality.region),
            ("cloud.availability_zone", &*workload.locality.zone),
        ];
        let mut text = String::with_capacity(192);
        for (key, value) in pairs.into_iter().filter(|(_, value)| is_carried(value)) {
            if !text.is_empty() {
                text.push(',');
            }
            text.push_str(key);
            text.push('=');
            text.push_str(value);
        }
        HeaderValue::try_from(text).expect("only printable ASCII was pushed")
    }

    /// What the `baggage` lines of `headers` say. Unknown keys, empty and overlong values are
    /// ignored; a line that is not ASCII makes the whole of it absent, as in Istio.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut baggage = Self::default();
        for line in headers.get_all(BAGGAGE) {
            let Ok(line) = line.to_str() else { return Self::default() };
            for item in line.split(',') {
                let mut pieces = item.split('=');
                let key = pieces.next().unwrap_or_default().trim();
                baggage.set(key, pieces.next().unwrap_or_default().trim());
            }
        }
        baggage
    }

    fn set(&mut self, key: &str, value: &str) {
        let field = match key {
            "k8s.cluster.name" => &mut self.cluster,
            "k8s.namespace.name" => &mut self.namespace,
            "k8s.deployment.name" | "k8s.cronjob.name" | "k8s.pod.name" | "k8s.job.name" => {
                &mut self.workload
            }
            "service.name" => &mut self.service,
            "service.version" => &mut self.version,
            "cloud.region" => &mut self.region,
            "cloud.availability_zone" => &mut self.zone,
            _ => return,
        };
        if is_carried(value) {
            *field = Some(value.into());
        }
    }
}

fn is_carried(value: &str) -> bool {
    let carried = |byte: u8| byte.is_ascii_graphic() && byte != b',' && byte != b'=';
    !value.is_empty() && value.len() <= LONGEST_VALUE_BYTES && value.bytes().all(carried)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Baggage {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(BAGGAGE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Baggage::parse(&headers)
    }

    #[test]
    fn all_lines_are_read_and_unknown_keys_skipped() {
        let baggage = parse(&[
            "k8s.cluster.name=c1,k8s.namespace.name=team,color=red",
            "k8s.deployment.name=web,service.name=shop,service.version=v2",
            "cloud.region=r1,cloud.availability_zone=z1",
        ]);
        assert_eq!(baggage.cluster.as_deref(), Some("c1"));
        assert_eq!(baggage.namespace.as_deref(), Some("team"));
        assert_eq!(baggage.workload.as_deref(), Some("web"));
        assert_eq!(baggage.service.as_deref(), Some("shop"));
        assert_eq!(baggage.version.as_deref(), Some("v2"));
        assert_eq!(baggage.region.as_deref(), Some("r1"));
        assert_eq!(baggage.zone.as_deref(), Some("z1"));
    }

    #[test]
    fn empty_values_are_absent_and_second_equals_sign_ends_the_value() {
        let baggage = parse(&["k8s.cluster.name=,service.name=a=b,k8s.job.name"]);
        assert_eq!(baggage, Baggage { service: Some("a".into()), ..Baggage::default() });
    }

    #[test]
    fn non_ascii_line_means_no_baggage() {
        assert_eq!(parse(&["service.name=a", "service.version=\u{e9}"]), Baggage::default());
    }

    #[test]
    fn overlong_value_is_ignored() {
        let line = format!("service.name={}", "x".repeat(LONGEST_VALUE_BYTES + 1));
        assert_eq!(parse(&[&line]), Baggage::default());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_parse_to_values_that_can_be_labels(line in proptest::collection::vec(0x20_u8..0x7f, 0..300)) {
            let baggage = parse(&[std::str::from_utf8(&line).unwrap()]);
            for value in [baggage.cluster, baggage.workload, baggage.zone].into_iter().flatten() {
                proptest::prop_assert!(is_carried(&value));
            }
        }
    }
}
