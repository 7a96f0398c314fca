//! This program again under callgrind, which counts only what happens within `operation::measured`:
//! neither what leads up to it nor its hash seeds matter.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::PERFORM;
use super::operation::Operation;

/// What stands before the figure in what callgrind tells at its end.
const FIGURE: &str = "Collected : ";

/// Whether there is a valgrind.
///
/// # Errors
/// Says how to get it.
pub(super) fn present() -> anyhow::Result<()> {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    let found = version.is_ok_and(|status| status.success());
    ensure!(found, "valgrind is missing: install the package `valgrind` of your distribution");
    Ok(())
}

/// Instructions of one `operation`.
pub(super) fn count(before: &[&str], operation: &Operation) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=benches::instructions::operation::measured*")
        .arg(program)
        .args(before)
        .args([PERFORM, operation.name, &operation.count.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("starting valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<&str> = told.lines().rev().take(5).collect();
        bail!("{}: {}", output.status, last.into_iter().rev().collect::<Vec<_>>().join(" / "));
    }
    let all = collected(&told).context("callgrind told no figure")?;
    ensure!(all > 0, "callgrind did not find the operation: the program has no symbols");
    Ok(all.div_ceil(u64::from(operation.count)))
}

/// The figure in what callgrind told.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().rev().find_map(|line| line.split_once(FIGURE))?;
    line.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_found_among_what_callgrind_tells() {
        let told =
            "==7== Events    : Ir\n==7== Collected : 81234\n==7== \n==7== I   refs:      81,234\n";
        assert_eq!(collected(told), Some(81_234));
        assert_eq!(collected("==7== valgrind: cannot execute"), None);
    }
}
