//! nghttpx as the server's end of a tunnel. It passes CONNECT on, to the role `exit` beside it.
//! Its client's end is of no use: a stream that the application ends first it never ends itself.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use super::{CertDir, Template, fill};
use crate::eventually::eventually;
use crate::pod::Pod;
use crate::process::Running;

const START: Duration = Duration::from_secs(20);

/// A running nghttpx, and the role that ends its streams.
#[derive(Debug)]
pub struct Nghttpx {
    running: Running,
    _exit: Running,
}

impl Nghttpx {
    /// Starts it in `pod`.
    ///
    /// # Errors
    /// It does not listen.
    pub fn start(pod: &Pod, certs: &CertDir) -> anyhow::Result<Self> {
        let address = pod.ip().to_string();
        let text = include_str!("../../peers/nghttpx-server.conf");
        let template = Template { file: "nghttpx-server.conf", text };
        let config = fill(pod, &template, &certs.add(pod)?, &[("address", &address)])?;
        let mut exit = pod.role("exit").args(["--listen", "127.0.0.1:9000"]).start()?;
        exit.line_with("listening", START)?;
        let running = pod.program("nghttpx").arg(format!("--conf={}", config.display())).start()?;
        let tunnel = SocketAddr::new(pod.ip(), 15008);
        eventually(START, "nghttpx listens", || {
            let second = Duration::from_secs(1);
            pod.netns().run(|| TcpStream::connect_timeout(&tunnel, second).map(drop))
        })
        .with_context(|| running.stderr())?;
        Ok(Self { running, _exit: exit })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.running
    }
}
