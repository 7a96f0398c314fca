use super::*;
use crate::telemetry::metrics::Exposition;

fn labels(workload: &str) -> Labels<'_> {
    Labels {
        reporter: Reporter::Source,
        source: Party {
            workload,
            namespace: "shop",
            canonical_service: "client",
            canonical_revision: "v1",
            principal: "spiffe://cluster.local/ns/shop/sa/client",
            cluster: "Kubernetes",
            ..Party::default()
        },
        destination: Party { zone: "z1", ..Party::default() },
        service: Service { host: "web.shop.svc.cluster.local", namespace: "shop", name: "web" },
        security: Security::MutualTls,
    }
}

fn setup() -> (Registry, Traffic, OnWorker) {
    let registry = Registry::default();
    let traffic = Traffic::new(&registry).unwrap();
    let worker = traffic.on_worker();
    (registry, traffic, worker)
}

fn samples(registry: &Registry, family: &str) -> Vec<String> {
    let text = registry.expose(Exposition::Prometheus).unwrap();
    text.lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect()
}

#[test]
fn labels_come_in_the_published_order_and_empty_ones_read_unknown() {
    let (registry, _traffic, worker) = setup();
    worker.open(&labels("client-1")).close(ResponseFlag::None);
    assert_eq!(
        samples(&registry, "istio_tcp_connections_closed_total"),
        ["istio_tcp_connections_closed_total{reporter=\"source\",source_workload=\"client-1\",\
          source_canonical_service=\"client\",source_canonical_revision=\"v1\",\
          source_workload_namespace=\"shop\",\
          source_principal=\"spiffe://cluster.local/ns/shop/sa/client\",source_app=\"client\",\
          source_version=\"v1\",source_cluster=\"Kubernetes\",\
          destination_service=\"web.shop.svc.cluster.local\",\
          destination_service_namespace=\"shop\",destination_service_name=\"web\",\
          destination_workload=\"unknown\",destination_canonical_service=\"unknown\",\
          destination_canonical_revision=\"unknown\",destination_workload_namespace=\"unknown\",\
          destination_principal=\"unknown\",destination_app=\"unknown\",\
          destination_version=\"unknown\",destination_cluster=\"unknown\",\
          request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\",\
          source_region=\"unknown\",source_zone=\"unknown\",destination_region=\"unknown\",\
          destination_zone=\"z1\"} 1"]
    );
}

#[test]
fn bytes_become_visible_at_a_flush_and_at_the_end() {
    let (registry, _traffic, worker) = setup();
    let connection = worker.open(&labels("c"));
    connection.received(11);
    connection.sent(22);
    assert!(samples(&registry, "istio_tcp_sent_bytes_total")[0].ends_with(" 0"));
    worker.flush();
    assert!(samples(&registry, "istio_tcp_sent_bytes_total")[0].ends_with(" 22"));
    connection.received(100);
    connection.close(ResponseFlag::None);
    assert!(samples(&registry, "istio_tcp_received_bytes_total")[0].ends_with(" 111"));
}

#[test]
fn workers_add_to_the_same_sample() {
    let (registry, traffic, first) = setup();
    let second = traffic.on_worker();
    first.open(&labels("c")).close(ResponseFlag::None);
    second.open(&labels("c")).close(ResponseFlag::None);
    let opened = samples(&registry, "istio_tcp_connections_opened_total");
    assert_eq!(opened.len(), 1);
    assert!(opened[0].ends_with(" 2"));
}

#[test]
fn a_failure_counts_as_closed_and_failed_with_its_flag() {
    let (registry, _traffic, worker) = setup();
    worker.open(&labels("c")).close(ResponseFlag::Denied);
    drop(worker.open(&labels("c")));
    worker.failed(&labels("c"), ResponseFlag::TlsFailure);
    let flags = |family: &str| -> Vec<String> {
        let mut flags: Vec<String> = samples(&registry, family)
            .iter()
            .map(|line| {
                line.split("response_flags=\"").nth(1).unwrap().split('"').next().unwrap().into()
            })
            .collect();
        flags.sort();
        flags
    };
    assert_eq!(flags("istio_tcp_connections_closed_total"), ["CONNECT", "DENY"]);
    assert_eq!(flags("istio_tcp_connections_failed_total"), ["CONNECT", "DENY", "TLS_FAILURE"]);
}

#[test]
fn open_sockets_return_to_zero() {
    let (registry, _traffic, worker) = setup();
    let socket = worker.socket(Reporter::Destination);
    let open = "istio_tcp_sockets_open{reporter=\"destination\"}";
    assert_eq!(samples(&registry, open), [format!("{open} 1")]);
    drop(socket);
    assert_eq!(samples(&registry, open), [format!("{open} 0")]);
}

#[tokio::test(start_paused = true)]
async fn label_sets_out_of_use_vanish_after_a_last_reading() {
    let (registry, _traffic, worker) = setup();
    let lasting = worker.open(&labels("stays"));
    worker.open(&labels("goes")).close(ResponseFlag::None);
    tokio::time::advance(FORGET_AFTER).await;
    worker.flush();
    assert_eq!(samples(&registry, "istio_tcp_connections_opened_total").len(), 2);
    assert_eq!(samples(&registry, "istio_tcp_connections_opened_total").len(), 1);
    lasting.close(ResponseFlag::None);
}
