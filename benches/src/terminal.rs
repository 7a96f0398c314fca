//! What every comparison has to do with the person who runs it: words, files, the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Progress and complaints; results go to standard output.
#[expect(clippy::print_stderr, reason = "the benchmark talks to a person")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Results.
#[expect(clippy::print_stdout, reason = "the benchmark talks to a person")]
pub(crate) fn print(text: &str) {
    print!("{text}");
}

/// Success if all went well, which `result` says; a failure is told.
pub(crate) fn ended(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("\nthe comparison could not go on: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Cargo runs benchmarks in the folder of their package: a relative path means the folder in
/// which the person typed it, which the shell still tells.
pub(crate) fn as_typed(path: &Path) -> PathBuf {
    let typed_in = std::env::var_os("PWD").map(PathBuf::from).filter(|dir| dir.is_dir());
    typed_in.map_or_else(|| path.to_owned(), |dir| dir.join(path))
}

/// A run that an earlier one has written.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(as_typed(file));
    let text = text.with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no run", file.display()))
}

/// Writes `text` to the file that was asked for, if one was.
pub(crate) fn write(
    file: Option<&Path>,
    text: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let Some(file) = file.map(as_typed) else { return Ok(()) };
    fs::write(&file, text()?).with_context(|| format!("writing {}", file.display()))
}

/// Whether a file can be written: better known now than after minutes.
pub(crate) fn writable(file: &Path) -> anyhow::Result<()> {
    let opened = fs::File::options().append(true).create(true).open(as_typed(file));
    opened.map(drop).with_context(|| format!("{} cannot be written", file.display()))
}

/// How long to measure, at least `least` seconds.
pub(crate) fn seconds(text: &str, least: f64) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match (least..=600.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err(format!("from {least} to 600")),
    }
}
