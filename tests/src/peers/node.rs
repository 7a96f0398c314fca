//! nghttp2 in Node.js at one end of a tunnel: the script is `tests/peers/nghttp2.mjs`.

use std::fs;
use std::time::Duration;

use super::CertDir;
use crate::pod::Pod;
use crate::process::Running;

const START: Duration = Duration::from_secs(20);

/// A running Node.js.
#[derive(Debug)]
pub struct Node {
    running: Running,
}

impl Node {
    /// Where the client's end takes plain connections, from within its pod.
    pub const PLAIN: &str = "127.0.0.1:7000";

    /// Starts the client's end in `pod`: connections to `PLAIN` go through a tunnel to `port` of
    /// `server`.
    ///
    /// # Errors
    /// It does not listen.
    pub fn client(pod: &Pod, certs: &CertDir, server: &Pod, port: u16) -> anyhow::Result<Self> {
        let address = server.ip();
        let own = serde_json::json!({
            "side": "client",
            "listen": Self::PLAIN,
            "peer": format!("{address}:15008"),
            "destination": format!("{address}:{port}"),
        });
        Self::start(pod, certs, server, own)
    }

    /// Starts the server's end in `pod`, for tunnels from `client`.
    ///
    /// # Errors
    /// It does not listen.
    pub fn server(pod: &Pod, certs: &CertDir, client: &Pod) -> anyhow::Result<Self> {
        let listen = format!("{}:15008", pod.ip());
        let own = serde_json::json!({ "side": "server", "listen": listen });
        Self::start(pod, certs, client, own)
    }

    fn start(
        pod: &Pod,
        certs: &CertDir,
        peer: &Pod,
        mut args: serde_json::Value,
    ) -> anyhow::Result<Self> {
        let files = certs.add(pod)?;
        args["chain"] = files.chain.display().to_string().into();
        args["key"] = files.key.display().to_string().into();
        args["root"] = files.root.display().to_string().into();
        args["identity"] = peer.identity().into();
        let logs = &pod.place().logs;
        fs::create_dir_all(logs)?;
        let script = logs.join("nghttp2.mjs");
        fs::write(&script, include_str!("../../peers/nghttp2.mjs"))?;
        let mut running = pod.program("node").arg(script).arg(args.to_string()).start()?;
        running.line_with("listening", START)?;
        Ok(Self { running })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.running
    }
}
