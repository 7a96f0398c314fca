//! Pieces of Envoy's configuration that say nothing of the scenario.

use serde_json::{Value, json};

pub(super) fn http(name: &str, hosts: &[Value]) -> Value {
    let filter = |name: &str, kind: &str| {
        json!({ "name": name, "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"),
        } })
    };
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "use_remote_address": false,
            "generate_request_id": true,
            "normalize_path": true,
            "stream_idle_timeout": "0s",
            "route_config": { "name": name, "validate_clusters": false, "virtual_hosts": hosts },
            "http_filters": [
                filter("envoy.filters.http.fault", "fault.v3.HTTPFault"),
                filter("envoy.filters.http.cors", "cors.v3.Cors"),
                filter("envoy.filters.http.router", "router.v3.Router"),
            ],
        },
    })
}

/// Ends HBONE and hands what is inside to the main listener.
pub(super) fn terminate() -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "connect_terminate",
            "codec_type": "HTTP2",
            "stream_idle_timeout": "0s",
            "http2_protocol_options": {
                "allow_connect": true, "max_concurrent_streams": 100,
                "connection_keepalive": { "interval": "10s", "timeout": "20s" },
            },
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "route_config": { "name": "connect_terminate", "virtual_hosts": [{
                "name": "default", "domains": ["*"],
                "routes": [{ "match": { "connect_matcher": {} }, "route": {
                    "cluster": "main_internal", "timeout": "0s",
                    "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                } }],
            }] },
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            } }],
        },
    })
}

pub(super) fn tcp_proxy(cluster: &str, tunnel_to: Option<&str>) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
    });
    if let Some(target) = tunnel_to {
        config["tunneling_config"] = json!({ "hostname": target });
    }
    json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": config })
}

pub(super) fn internal() -> Value {
    json!({
        "name": "envoy.transport_sockets.internal_upstream",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
                },
            },
        },
    })
}

/// Istio's defaults.
pub(super) fn unlimited() -> Value {
    let most = u32::MAX;
    json!({ "thresholds": [{
        "max_connections": most, "max_pending_requests": most, "max_requests": most,
        "max_retries": most, "track_remaining": true,
    }] })
}

pub(super) fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

pub(super) fn bootstrap(id: &str, listeners: &[Value], clusters: &[Value]) -> Value {
    json!({
        "node": { "id": id, "cluster": "default" },
        "admin": { "address": socket("127.0.0.1", 15000) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}
