//! The applications on the server's side: a web server, a bulk server, an echo server.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use harness::cluster::Cluster;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::process::Running;

use crate::program::NGINX;

pub(super) const HTTP_PORT: u16 = 80;
pub(super) const BULK_PORT: u16 = 5201;
pub(super) const ECHO_PORT: u16 = 7;
/// One KiB.
pub(super) const PATH: &str = "/bytes/1024";

const SOON: Duration = Duration::from_secs(20);

/// The running servers.
pub(super) struct Backend {
    pub(super) http: Running,
    pub(super) bulk: Running,
    pub(super) echo: Running,
}

impl Backend {
    /// Starts the servers in `pod`.
    pub(super) fn start(cluster: &Cluster, pod: &Pod) -> anyhow::Result<Self> {
        Self::launch(cluster, pod, None)
    }

    /// Starts them with mutual TLS of their own, from the certificates in `certs`.
    pub(super) fn start_with_tls(
        cluster: &Cluster,
        pod: &Pod,
        certs: &Path,
    ) -> anyhow::Result<Self> {
        Self::launch(cluster, pod, Some(&certs.join("server")))
    }

    fn launch(cluster: &Cluster, pod: &Pod, tls: Option<&Path>) -> anyhow::Result<Self> {
        let role = |name: &str, port: u16| {
            let mut program = pod.role(name).args(["--listen", &format!("[::]:{port}")]);
            if let Some(tls) = tls {
                program = program.arg("--tls").arg(tls);
            }
            let mut running = program.start()?;
            running.line_with("listening", SOON)?;
            anyhow::Ok(running)
        };
        let http = match NGINX.path() {
            Some(_) => nginx(cluster, pod, tls)?,
            None => role("http", HTTP_PORT)?,
        };
        Ok(Self { http, bulk: role("bulk", BULK_PORT)?, echo: role("echo", ECHO_PORT)? })
    }
}

/// One process without workers, so that its cost is one figure.
fn nginx(cluster: &Cluster, pod: &Pod, tls: Option<&Path>) -> anyhow::Result<Running> {
    let root = cluster.dir().join("www");
    fs::create_dir_all(root.join("bytes"))?;
    fs::write(root.join("bytes/1024"), vec![b'x'; 1024])?;
    let config = cluster.dir().join("nginx.conf");
    let tls = tls.map(|tls| tls.display().to_string());
    fs::write(&config, nginx_config(&root.display().to_string(), tls.as_deref()))?;
    let nginx = pod.program("nginx").arg("-c").arg(&config).start()?;
    let address = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT));
    let listens = eventually(SOON, "nginx listens", || {
        pod.netns().run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop))
    });
    listens.with_context(|| nginx.stderr())?;
    Ok(nginx)
}

fn nginx_config(root: &str, tls: Option<&str>) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (ssl, settings) = match tls {
        Some(tls) => (
            "ssl",
            format!(
                "ssl_certificate {tls}/cert-chain.pem; ssl_certificate_key {tls}/key.pem; \
                 ssl_client_certificate {tls}/root-cert.pem; ssl_verify_client on; \
                 ssl_protocols TLSv1.3; ssl_session_tickets off; \
                 ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256;"
            ),
        ),
        None => ("", String::new()),
    };
    format!(
        "{user}\ndaemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
         keepalive_timeout 3600s;\n  open_file_cache max=16;\n  \
         client_body_temp_path {root}/body;\n  proxy_temp_path {root}/proxy;\n  \
         fastcgi_temp_path {root}/fastcgi;\n  uwsgi_temp_path {root}/uwsgi;\n  \
         scgi_temp_path {root}/scgi;\n  \
         server {{ listen [::]:{HTTP_PORT} ipv6only=off {ssl}; root {root}; {settings} }}\n}}\n"
    )
}
