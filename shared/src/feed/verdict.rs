//! What is not in force, and why; or what is in force and still worth a word.

use std::fmt;
use std::sync::Arc;

/// A remark about an object or one of its fields. What has none is in force as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The file, relative to the mesh directory.
    pub file: Arc<str>,
    /// Line in the file, from 1; 0 when the remark is about the whole file.
    pub line: u32,
    /// `Kind/namespace/name`, or `Kind/name`; "" when the file could not be read so far.
    pub object: Arc<str>,
    /// Path of the field, such as `spec.ports[0].port`; "" for the whole object.
    pub field: Box<str>,
    /// Whether it is in force as written.
    pub in_force: bool,
    /// What kind of remark it is.
    pub cause: Cause,
    /// The reason, and what holds instead.
    pub reason: Box<str>,
}

/// Why something is not in force as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The file could not be read or is no YAML; the last good version of its objects stays.
    Unreadable,
    /// No such kind or field.
    Unknown,
    /// A real kind, field or value that Culvert does not act on.
    Unsupported,
    /// Something else of the same name or address comes first.
    Shadowed,
    /// The value cannot be right.
    Invalid,
    /// In force, with a default for something that was left out.
    Default,
    /// In force, with a risk that the operator should know.
    Risk,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        for part in [&*self.object, &*self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, ": {part}")?;
        }
        let force = if self.in_force { "in force" } else { "not in force" };
        write!(f, ": {force}: {}: {}", self.cause, self.reason)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
            Self::Unsupported => "unsupported",
            Self::Shadowed => "shadowed",
            Self::Invalid => "invalid",
            Self::Default => "default",
            Self::Risk => "risk",
        })
    }
}
