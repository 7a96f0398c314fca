//! The filter as text: what it was at the start, and what was added since.

use std::fmt;

/// A request to change levels is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not one of the level words.
    #[error("unknown level {0:?}, expected off, error, warn, info, debug or trace")]
    Level(String),
    /// Not a module path or target.
    #[error("scope {0:?} is not a module path, write scope=level")]
    Scope(String),
    /// A parameter that does not exist.
    #[error("unknown parameter {0:?}, expected level or reset")]
    Parameter(String),
}

/// One clause of a filter: a level, for everything or for a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    scope: Option<String>,
    level: String,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{scope}={}", self.level),
            None => f.write_str(&self.level),
        }
    }
}

/// What to do with the levels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Begin again from the filter of the start.
    pub reset: bool,
    /// Added in order; a later clause replaces an earlier one of the same scope.
    pub clauses: Vec<Clause>,
}

impl Change {
    /// Reads `level=debug`, `level=info,access=debug`, `reset`, or both joined by `&`.
    ///
    /// # Errors
    /// A parameter, scope or level is not known. `scope:level` is not a form.
    pub fn parse(query: &str) -> Result<Self, ParseError> {
        let mut change = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "reset" => change.reset = true,
                "level" => {
                    let value = value.replace("%2C", ",").replace("%3D", "=").replace("%3A", ":");
                    for clause in value.split(',') {
                        change.clauses.push(parse_clause(clause)?);
                    }
                }
                unknown => return Err(ParseError::Parameter(unknown.to_owned())),
            }
        }
        Ok(change)
    }
}

fn parse_clause(text: &str) -> Result<Clause, ParseError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let (scope, level) = match text.split_once('=') {
        Some((scope, level)) => (Some(scope), level),
        None => (None, text),
    };
    let level = level.to_ascii_lowercase();
    if !LEVELS.contains(&level.as_str()) {
        return Err(ParseError::Level(level));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
    match scope {
        Some(scope) if scope.is_empty() || !scope.chars().all(allowed) => {
            Err(ParseError::Scope(scope.to_owned()))
        }
        scope => Ok(Clause { scope: scope.map(str::to_owned), level }),
    }
}

/// The filter of the start, and the clauses added to it.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    start: String,
    added: Vec<Clause>,
}

impl Levels {
    pub(super) fn new(start: &str) -> Self {
        Self { start: start.to_owned(), added: Vec::new() }
    }

    pub(super) fn changed(&self, change: &Change) -> Self {
        let mut changed = self.clone();
        if change.reset {
            changed.added.clear();
        }
        for clause in &change.clauses {
            changed.added.retain(|old| old.scope != clause.scope);
            changed.added.push(clause.clone());
        }
        changed
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.start)?;
        self.added.iter().try_for_each(|clause| write!(f, ",{clause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_are_added_and_replace_their_like() {
        let start = Levels::new("info");
        let first = start.changed(&Change::parse("level=warn,access=debug").unwrap());
        assert_eq!(first.to_string(), "info,warn,access=debug");
        let second = first.changed(&Change::parse("level=error").unwrap());
        assert_eq!(second.to_string(), "info,access=debug,error");
        let reset = second.changed(&Change::parse("reset").unwrap());
        assert_eq!(reset.to_string(), "info");
        let both = second.changed(&Change::parse("reset&level=ztunnel::outbound=trace").unwrap());
        assert_eq!(both.to_string(), "info,ztunnel::outbound=trace");
    }

    #[test]
    fn other_forms_are_refused() {
        for query in ["level=access:debug", "level=access", "level=", "level==debug", "verbose"] {
            assert!(Change::parse(query).is_err(), "{query} must be refused");
        }
    }

    #[test]
    fn every_accepted_clause_is_a_filter() {
        for query in ["level=DEBUG", "level=off", "level=a_b::c=trace", "level=a%3Dinfo"] {
            let filter = Levels::new("info").changed(&Change::parse(query).unwrap()).to_string();
            tracing_subscriber::EnvFilter::try_new(&filter).unwrap();
        }
    }
}
