//! Envoy's configuration as Istio 1.27 writes it for a sidecar and for a waypoint, for any number of
//! services and endpoints. The same choices as in `benches/baseline`, whose README says where they
//! differ from Istio's; here endpoints come from files, so that they can change.

mod parts;

use std::path::{Path, PathBuf};
use std::{fs, io};

use harness::pod::Pod;
use serde_json::{Value, json};

use self::parts::{bootstrap, http, internal, socket, tcp_proxy, terminate, unlimited};
use super::world::{APP_PORT, Policy, Service};

/// Where an identity's certificate is.
pub(super) struct Identity<'a> {
    pub(super) certs: &'a Path,
    pub(super) pod: &'a Pod,
}

impl Identity<'_> {
    fn common(&self, alpn: &[&str]) -> Value {
        let home = self.certs.join("ns/default/sa").join(self.pod.spec().account());
        json!({
            "alpn_protocols": alpn,
            // As a client Envoy stops at TLS 1.2 unless told otherwise.
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3",
            },
            "tls_certificates": [{
                "certificate_chain": { "filename": home.join("cert-chain.pem") },
                "private_key": { "filename": home.join("key.pem") },
            }],
            "validation_context": {
                "trusted_ca": { "filename": self.certs.join("root-cert.pem") },
                "match_typed_subject_alt_names": [{
                    "san_type": "URI", "matcher": { "prefix": "spiffe://cluster.local/" },
                }],
            },
        })
    }

    fn upstream(&self, alpn: &[&str]) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": self.common(alpn),
            },
        })
    }

    fn downstream(&self, alpn: &[&str]) -> Value {
        json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": true,
                "common_tls_context": self.common(alpn),
            },
        })
    }
}

/// The files from which Envoys learn who is behind a service.
#[derive(Debug)]
pub(super) struct Endpoints {
    dir: PathBuf,
}

impl Endpoints {
    pub(super) fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn file(&self, service: &str) -> PathBuf {
        self.dir.join(format!("{service}.json"))
    }

    /// Says who is behind `service` from now on: addresses of Envoy's kind.
    pub(super) fn write(&self, service: &str, addresses: &[Value]) -> io::Result<()> {
        let endpoint = |address: &Value| json!({ "endpoint": { "address": address } });
        let text = json!({
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": service,
                "endpoints": [{ "lb_endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>() }],
            }],
        });
        let draft = self.dir.join(format!(".{service}.draft"));
        fs::write(&draft, text.to_string())?;
        fs::rename(draft, self.file(service))
    }
}

/// An endpoint as a sidecar reaches it.
pub(super) fn direct(pod: &Pod) -> Value {
    socket(&pod.ip().to_string(), APP_PORT)
}

/// An endpoint as a waypoint reaches it: by a listener that opens its tunnel.
pub(super) fn tunnelled(pod: &Pod) -> Value {
    json!({ "envoy_internal_address": {
        "server_listener_name": format!("originate-{}", pod.name()),
        "endpoint_id": pod.name(),
    } })
}

/// The sidecar of a pod, as client of `services` and as server of its own application.
pub(super) fn sidecar(
    identity: &Identity<'_>,
    services: &[Service],
    endpoints: &Endpoints,
) -> Value {
    let outbound = json!({
        "name": "virtualOutbound",
        "address": socket("0.0.0.0", 15001),
        "use_original_dst": true,
        "filter_chains": [{ "filters": [tcp_proxy("BlackHoleCluster", None)] }],
    });
    let inbound = json!({
        "name": "virtualInbound",
        "address": socket("0.0.0.0", 15006),
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": true,
        "listener_filters": [
            { "name": "envoy.filters.listener.original_dst", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            } },
            { "name": "envoy.filters.listener.tls_inspector", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            } },
        ],
        "filter_chains": [{
            "filter_chain_match": { "destination_port": APP_PORT, "transport_protocol": "tls" },
            "transport_socket": identity.downstream(&["h2", "http/1.1"]),
            // Istio's inbound routes repeat what no byte of was sent.
            "filters": [http("inbound", &[virtual_host("inbound", &["*"], "inbound", Some(json!({
                "retry_on": "reset-before-request", "num_retries": 2,
            })))])],
        }],
    });
    let of_service = |service: &Service| {
        let host = virtual_host(
            service.name,
            &[&*service.address.to_string(), &*format!("{}:80", service.address)],
            service.name,
            Some(retries(service.policy)),
        );
        json!({
            "name": format!("{}_80", service.address),
            "address": socket(&service.address.to_string(), 80),
            "bind_to_port": false,
            "filter_chains": [{ "filters": [http(service.name, &[host])] }],
        })
    };
    let alpn = ["istio-http/1.1", "istio", "http/1.1"];
    let cluster = |service: &Service| {
        let mut cluster = discovered(service, endpoints, identity.upstream(&alpn));
        // Where Istio's rules look for the sidecar's user, the rules here look for its mark.
        cluster["upstream_bind_config"] = json!({
            "source_address": { "address": "0.0.0.0", "port_value": 0 },
            "socket_options": [{
                "description": "SO_MARK", "level": 1, "name": 36, "int_value": 1337,
                "state": "STATE_PREBIND",
            }],
        });
        cluster
    };
    let mut listeners = vec![outbound, inbound];
    listeners.extend(services.iter().map(of_service));
    let mut clusters = vec![
        json!({ "name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "10s" }),
        json!({
            "name": "inbound", "type": "ORIGINAL_DST", "connect_timeout": "10s",
            "lb_policy": "CLUSTER_PROVIDED", "circuit_breakers": unlimited(),
            "upstream_bind_config": {
                "source_address": { "address": "127.0.0.6", "port_value": 0 },
            },
        }),
    ];
    clusters.extend(services.iter().map(cluster));
    bootstrap(&format!("sidecar~{}", identity.pod.name()), &listeners, &clusters)
}

/// A waypoint for `services`, whose endpoints are among `pods`.
pub(super) fn waypoint(
    identity: &Identity<'_>,
    services: &[Service],
    endpoints: &Endpoints,
    pods: &[&Pod],
) -> Value {
    let terminate = json!({
        "name": "connect_terminate",
        "address": socket("0.0.0.0", 15008),
        "connection_balance_config": { "exact_balance": {} },
        "filter_chains": [{
            "transport_socket": identity.downstream(&["h2"]),
            "filters": [terminate()],
        }],
    });
    let hosts: Vec<Value> = services
        .iter()
        .map(|service| {
            let address = service.address.to_string();
            let domains = [&*address, &*format!("{address}:80")];
            virtual_host(service.name, &domains, service.name, Some(retries(service.policy)))
        })
        .collect();
    let main = json!({
        "name": "main_internal",
        "internal_listener": {},
        "filter_chains": [{ "filters": [http("main_internal", &hosts)] }],
    });
    let mut listeners = vec![terminate, main];
    let mut clusters = vec![json!({
        "name": "main_internal",
        "type": "STATIC",
        "load_assignment": { "cluster_name": "main_internal", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": { "envoy_internal_address": {
                "server_listener_name": "main_internal",
            } } },
        }] }] },
        "transport_socket": internal(),
        "circuit_breakers": unlimited(),
    })];
    clusters.extend(services.iter().map(|one| discovered(one, endpoints, internal())));
    for pod in pods {
        let name = format!("originate-{}", pod.name());
        let target = format!("{}:{APP_PORT}", pod.ip());
        listeners.push(json!({
            "name": name,
            "internal_listener": {},
            "filter_chains": [{ "filters": [tcp_proxy(&name, Some(&target))] }],
        }));
        clusters.push(originate(identity, &name, pod));
    }
    let mut config = bootstrap(&format!("waypoint~{}", identity.pod.name()), &listeners, &clusters);
    config["bootstrap_extensions"] = json!([{
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
        },
    }]);
    config
}

/// HBONE to one pod.
fn originate(identity: &Identity<'_>, name: &str, pod: &Pod) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": socket(&pod.ip().to_string(), 15008) },
        }] }] },
        "transport_socket": identity.upstream(&["h2"]),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": { "idle_timeout": "3600s" },
                "explicit_http_config": { "http2_protocol_options": {
                    "allow_connect": true, "max_concurrent_streams": 100,
                } },
            },
        },
    })
}

/// A cluster whose endpoints come from a file.
fn discovered(service: &Service, endpoints: &Endpoints, socket: Value) -> Value {
    let mut cluster = json!({
        "name": service.name,
        "type": "EDS",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": unlimited(),
        "eds_cluster_config": { "service_name": service.name, "eds_config": {
            "resource_api_version": "V3",
            "path_config_source": { "path": endpoints.file(service.name) },
        } },
        "transport_socket": socket,
    });
    if service.policy.outliers {
        // Istio turns the detectors of its API on and the others off.
        cluster["outlier_detection"] = json!({
            "consecutive_5xx": 3, "enforcing_consecutive_5xx": 100,
            "enforcing_success_rate": 0, "enforcing_consecutive_gateway_failure": 0,
            "interval": "1s", "base_ejection_time": "5s", "max_ejection_percent": 100,
        });
        cluster["common_lb_config"] = json!({ "healthy_panic_threshold": { "value": 0 } });
    }
    cluster
}

/// Istio's default, and with it what an `HTTPRoute` with `retry` becomes.
fn retries(policy: Policy) -> Value {
    let mut retries = json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            },
        }],
    });
    if policy.retries {
        retries["retriable_status_codes"] = json!([503]);
    }
    retries
}

fn virtual_host(name: &str, domains: &[&str], cluster: &str, retries: Option<Value>) -> Value {
    let mut route = json!({
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": { "max_stream_duration": "0s", "grpc_timeout_header_max": "0s" },
    });
    if let Some(retries) = retries {
        route["retry_policy"] = retries;
    }
    json!({
        "name": name,
        "domains": domains,
        "include_request_attempt_count": true,
        "routes": [{ "name": "default", "match": { "prefix": "/" }, "route": route }],
    })
}
