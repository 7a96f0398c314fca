//! Proxies that other people wrote, as the other end of a tunnel. Their configurations are files
//! below `tests/peers`, with gaps in double braces.

mod certs;
mod envoy;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::pod::Pod;

pub use certs::{CertDir, PemFiles};
pub use envoy::Envoy;

/// Fills the gaps of `template` and writes it to `file` beside the logs of `pod`.
fn fill(pod: &Pod, file: &str, template: &str, gaps: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let mut text = template.to_owned();
    for (name, value) in gaps {
        let gap = format!("{{{{{name}}}}}");
        anyhow::ensure!(text.contains(&gap), "{file} has no gap {gap}");
        text = text.replace(&gap, value);
    }
    anyhow::ensure!(!text.contains("{{"), "{file} has a gap that nothing fills:\n{text}");
    let logs = &pod.place().logs;
    fs::create_dir_all(logs)?;
    let path = logs.join(file);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
