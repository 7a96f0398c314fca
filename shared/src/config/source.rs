//! Where settings are given: the command line and the environment.

use std::collections::BTreeMap;

use super::setting::Setting;

/// Variables by name.
pub trait Environment {
    /// The value of a variable; `None` when unset or not text.
    fn variable(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

/// An environment out of a map, so that nobody has to touch the real one.
impl Environment for BTreeMap<String, String> {
    fn variable(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Flags and variables together.
pub trait Source {
    /// The value of a flag.
    fn flag(&self, setting: &Setting) -> Option<String>;
    /// The value of a variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// Flags that were given, over an environment.
#[derive(Debug)]
pub struct Given<'a, E> {
    flags: BTreeMap<&'static str, String>,
    environment: &'a E,
}

impl<'a, E: Environment> Given<'a, E> {
    /// Flags by their names, without dashes.
    pub fn new(flags: BTreeMap<&'static str, String>, environment: &'a E) -> Self {
        Self { flags, environment }
    }
}

impl<E: Environment> Source for Given<'_, E> {
    fn flag(&self, setting: &Setting) -> Option<String> {
        self.flags.get(setting.flag).cloned()
    }

    fn variable(&self, name: &str) -> Option<String> {
        // An empty variable is how manifests say "not set".
        self.environment.variable(name).filter(|value| !value.is_empty())
    }

    fn names(&self) -> Vec<String> {
        self.environment.names()
    }
}
