//! Unmodified programs through two ztunnels, from node to node.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::enter::find;
use harness::eventually::eventually;
use harness::mesh_dir::Service;
use harness::process::Program;

use super::mesh::{Mesh, SOON, listens};
use super::suite::Case;

pub(crate) const CASES: &[Case] = &[
    ("programs::nginx_and_curl", &["nginx", "curl"], nginx_and_curl),
    ("programs::redis_benchmark", &["redis-server", "redis-benchmark"], redis_benchmark),
    ("programs::postgresql_and_pgbench", &["initdb", "postgres", "pgbench"], postgresql),
    ("programs::iperf3_in_both_directions", &["iperf3"], iperf3_in_both_directions),
];

fn nginx_and_curl() -> anyhow::Result<()> {
    let mesh = Mesh::new("nginx")?;
    let root = mesh.cluster.dir().join("www");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("page"), vec![b'x'; 1 << 20])?;
    let root = root.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = mesh.cluster.dir().join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "{user}\ndaemon off;\nmaster_process off;\npid {root}/pid;\nerror_log stderr;\n\
             events {{}}\nhttp {{\n  access_log off;\n  client_body_temp_path {root}/body;\n  \
             proxy_temp_path {root}/proxy;\n  fastcgi_temp_path {root}/fastcgi;\n  \
             uwsgi_temp_path {root}/uwsgi;\n  scgi_temp_path {root}/scgi;\n  \
             server {{ listen 80; listen 81 http2; root {root}; }}\n}}\n"
        ),
    )?;
    let _nginx = mesh.server.program("nginx").arg("-c").arg(&config).start()?;
    listens(&mesh.server, 80)?;
    for (port, version) in [(80, "--http1.1"), (81, "--http2-prior-knowledge")] {
        let url = format!("http://server:{port}/page");
        let seen = mesh
            .client
            .program("curl")
            .args(["--silent", "--show-error", "--fail", version, "--max-time", "20"])
            .args(["--output", "/dev/null", "--write-out", "%{http_version} %{size_download}"])
            .arg(url)
            .success(SOON)?;
        let expected = if port == 80 { "1.1 1048576" } else { "2 1048576" };
        ensure!(seen == expected, "curl says {seen:?}");
    }
    mesh.was_tunnelled()
}

fn redis_benchmark() -> anyhow::Result<()> {
    let mesh = Mesh::new("redis")?;
    let dir = mesh.cluster.dir().join("redis");
    std::fs::create_dir_all(&dir)?;
    let _redis = mesh
        .server
        .program("redis-server")
        .args(["--bind", "*", "--protected-mode", "no", "--save", "", "--port", "6379"])
        .arg("--dir")
        .arg(&dir)
        .start()?;
    listens(&mesh.server, 6379)?;
    let report = mesh
        .client
        .program("redis-benchmark")
        .args(["-h", "server", "-n", "5000", "-c", "20", "-t", "ping,set,get", "--csv"])
        .success(Duration::from_secs(60))?;
    for command in ["\"SET\"", "\"GET\""] {
        ensure!(report.contains(command), "redis-benchmark says {report:?}");
    }
    mesh.was_tunnelled()
}

fn postgresql() -> anyhow::Result<()> {
    let mesh = Mesh::new("postgresql")?;
    let dir = mesh.cluster.dir().join("postgresql");
    std::fs::create_dir_all(&dir)?;
    // Whoever the server runs as, the directory of its data is its own.
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o1777))?;
    let data = dir.join("data");
    // Root may not run it; another user needs no other.
    let server = |program: &str| -> anyhow::Result<Program> {
        let program = find(program).with_context(|| format!("no {program}"))?;
        Ok(Program::as_user(mesh.server.place(), &program, "postgres").arg("-D").arg(&data))
    };
    server("initdb")?
        .args(["--username", "mesh", "--auth", "trust", "--no-sync", "--locale", "C"])
        .success(Duration::from_secs(120))?;
    let access = dir.join("access");
    std::fs::write(&access, "host all all all trust\n")?;
    let _server = server("postgres")?
        .args(["-h", "*", "-p", "5432", "-k", "", "-c", "fsync=off", "-c", "max_wal_size=64MB"])
        // Nothing outside of the directory, not even in /dev/shm.
        .args(["-c", "dynamic_shared_memory_type=mmap", "-c"])
        .arg(format!("hba_file={}", access.display()))
        .start()?;
    listens(&mesh.server, 5432)?;
    let vip: IpAddr = "10.96.0.1".parse()?;
    mesh.cluster.mesh().service(&Service {
        name: "database",
        namespace: "default",
        addresses: &[vip],
        ports: &[(15432, 5432)],
        app: "server",
    })?;
    let bench = |address: IpAddr, port: &str, args: &[&str]| {
        mesh.client
            .program("pgbench")
            .args(["-h", &address.to_string(), "-p", port, "-U", "mesh"])
            .args(args)
            .arg("postgres")
            .success(Duration::from_secs(120))
    };
    eventually(SOON, "the service is known", || bench(vip, "15432", &["-i", "-I", "dt"]))?;
    bench(mesh.server.ip(), "5432", &["-i", "--quiet"])?;
    for (address, port) in [(mesh.server.ip(), "5432"), (vip, "15432")] {
        let report = bench(address, port, &["-c", "4", "-j", "2", "-t", "100"])?;
        ensure!(report.contains("transactions actually processed: 400/400"), "{report}");
        // PostgreSQL 15 counts them; before, a failure ended the run.
        let failed = report.lines().find(|line| line.starts_with("number of failed"));
        ensure!(failed.is_none_or(|line| line.contains(": 0 (")), "{report}");
    }
    mesh.was_tunnelled()
}

fn iperf3_in_both_directions() -> anyhow::Result<()> {
    let mesh = Mesh::new("iperf3")?;
    let _server = mesh.server.program("iperf3").args(["--server"]).start()?;
    listens(&mesh.server, 5201)?;
    for direction in [&[][..], &["--reverse"]] {
        let report = mesh
            .client
            .program("iperf3")
            .args(["--client", "server", "--time", "2", "--json"])
            .args(direction)
            .success(Duration::from_secs(40))?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        let received = report["end"]["sum_received"]["bytes"].as_u64().unwrap_or_default();
        ensure!(received > 1 << 20, "iperf3 {direction:?} received {received} bytes");
    }
    mesh.was_tunnelled()
}
