//! Proxies that other people wrote, as the other end of a tunnel. Their configurations are files
//! below `tests/peers`, with gaps in double braces.

mod certs;
mod envoy;
mod nghttpx;
mod node;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::pod::Pod;

pub use certs::{CertDir, PemFiles};
pub use envoy::Envoy;
pub use nghttpx::Nghttpx;
pub use node::Node;

/// A configuration, as it is written in `tests/peers`.
struct Template {
    file: &'static str,
    text: &'static str,
}

/// Fills the gaps of `template`, those for `certificate` among them, and writes the result beside
/// the logs of `pod`.
fn fill(
    pod: &Pod,
    template: &Template,
    certificate: &PemFiles,
    gaps: &[(&str, &str)],
) -> anyhow::Result<PathBuf> {
    let PemFiles { chain, key, root } = certificate;
    let mut text = template.text.to_owned();
    for (name, path) in [("chain", chain), ("key", key), ("root", root)] {
        text = fill_one(&text, name, &path.display().to_string())?;
    }
    for (name, value) in gaps {
        text = fill_one(&text, name, value)?;
    }
    anyhow::ensure!(!text.contains("{{"), "a gap that nothing fills:\n{text}");
    let logs = &pod.place().logs;
    fs::create_dir_all(logs)?;
    let path = logs.join(template.file);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn fill_one(text: &str, name: &str, value: &str) -> anyhow::Result<String> {
    let gap = format!("{{{{{name}}}}}");
    anyhow::ensure!(text.contains(&gap), "no gap {gap}:\n{text}");
    Ok(text.replace(&gap, value))
}
