//! The applications on the server's side: a web server, a bulk server, an echo server.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use harness::cluster::Cluster;
use harness::enter::find;
use harness::eventually::eventually;
use harness::pod::Pod;
use harness::process::Running;

pub(super) const HTTP_PORT: u16 = 80;
pub(super) const BULK_PORT: u16 = 5201;
pub(super) const ECHO_PORT: u16 = 7;
/// One KiB.
pub(super) const PATH: &str = "/bytes/1024";

const SOON: Duration = Duration::from_secs(20);

/// Whether nginx answers the requests; else a role of the harness does.
pub(super) fn has_nginx() -> bool {
    find("nginx").is_some()
}

/// The running servers.
pub(super) struct Backend {
    pub(super) http: Running,
    pub(super) bulk: Running,
    pub(super) echo: Running,
}

impl Backend {
    /// Starts the servers in `pod`.
    pub(super) fn start(cluster: &Cluster, pod: &Pod) -> anyhow::Result<Self> {
        let http = if has_nginx() { nginx(cluster, pod)? } else { role(pod, "http", HTTP_PORT)? };
        Ok(Self { http, bulk: role(pod, "bulk", BULK_PORT)?, echo: role(pod, "echo", ECHO_PORT)? })
    }
}

fn role(pod: &Pod, role: &str, port: u16) -> anyhow::Result<Running> {
    let mut running = pod.role(role).args(["--listen", &format!("[::]:{port}")]).start()?;
    running.line_with("listening", SOON)?;
    Ok(running)
}

/// One process without workers, so that its cost is one figure.
fn nginx(cluster: &Cluster, pod: &Pod) -> anyhow::Result<Running> {
    let root = cluster.dir().join("www");
    fs::create_dir_all(root.join("bytes"))?;
    fs::write(root.join("bytes/1024"), vec![b'x'; 1024])?;
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let root = root.display();
    let config = cluster.dir().join("nginx.conf");
    fs::write(
        &config,
        format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n\
             worker_rlimit_nofile 65536;\nevents {{ worker_connections 16384; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
             keepalive_timeout 3600s;\n  open_file_cache max=16;\n  \
             client_body_temp_path {root}/body;\n  proxy_temp_path {root}/proxy;\n  \
             fastcgi_temp_path {root}/fastcgi;\n  uwsgi_temp_path {root}/uwsgi;\n  \
             scgi_temp_path {root}/scgi;\n  server {{ listen [::]:{HTTP_PORT} ipv6only=off; root {root}; }}\n}}\n"
        ),
    )?;
    let nginx = pod.program("nginx").arg("-c").arg(&config).start()?;
    let address = SocketAddr::from(([127, 0, 0, 1], HTTP_PORT));
    eventually(SOON, "nginx listens", || {
        pod.netns().run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop))
    })?;
    Ok(nginx)
}
