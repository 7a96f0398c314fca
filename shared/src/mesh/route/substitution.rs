//! Replacing what an expression finds in a path.

use std::fmt;
use std::sync::Arc;

use regex::bytes::Regex;
use serde::Serialize;

use super::PatternError;
use super::matching::compile;

/// An expression, and what stands instead of everything that it finds. Equal when written alike.
#[derive(Clone)]
pub struct Substitution {
    pattern: Arc<str>,
    rewrite: Arc<str>,
    regex: Regex,
    parts: Arc<[Part]>,
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// What a group found, 0 for all of it.
    Group(usize),
}

/// Why there is no such replacement.
#[derive(Debug, thiserror::Error)]
pub enum SubstitutionError {
    /// The expression is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A backslash is followed by neither a digit nor a backslash.
    #[error("after a backslash there must be a digit or a backslash")]
    Escape,
    /// The expression has fewer groups.
    #[error("the expression has no group {0}")]
    Group(usize),
}

impl Substitution {
    /// `rewrite` holds `\0` to `\9` for what groups found, and `\\` for a backslash (RE2).
    ///
    /// # Errors
    /// Either is none.
    pub fn new(pattern: &str, rewrite: &str) -> Result<Self, SubstitutionError> {
        let regex = compile(pattern)?;
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut letters = rewrite.chars();
        while let Some(letter) = letters.next() {
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match letters.next() {
                Some('\\') => text.push('\\'),
                Some(digit @ '0'..='9') => {
                    let group = usize::from(digit as u8 - b'0');
                    if group >= regex.captures_len() {
                        return Err(SubstitutionError::Group(group));
                    }
                    if !text.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut text).into()));
                    }
                    parts.push(Part::Group(group));
                }
                _ => return Err(SubstitutionError::Escape),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        Ok(Self { pattern: pattern.into(), rewrite: rewrite.into(), regex, parts: parts.into() })
    }

    /// `path` with everything replaced that is found; `None` when that has more than `most` bytes.
    pub fn replaced(&self, path: &str, most: usize) -> Option<String> {
        let mut new = Vec::new();
        let mut done = 0;
        for found in self.regex.captures_iter(path.as_bytes()) {
            let whole = found.get(0)?;
            new.extend_from_slice(&path.as_bytes()[done..whole.start()]);
            for part in &*self.parts {
                match part {
                    Part::Text(text) => new.extend_from_slice(text.as_bytes()),
                    Part::Group(group) => {
                        let group = found.get(*group).map(|group| group.as_bytes());
                        new.extend_from_slice(group.unwrap_or_default());
                    }
                }
            }
            done = whole.end();
            if new.len() > most {
                return None;
            }
        }
        new.extend_from_slice(&path.as_bytes()[done..]);
        String::from_utf8(new).ok().filter(|new| new.len() <= most)
    }
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        (&self.pattern, &self.rewrite) == (&other.pattern, &other.rewrite)
    }
}

impl Eq for Substitution {}

impl fmt::Display for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.pattern, self.rewrite)
    }
}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Substitution").field(&self.pattern).field(&self.rewrite).finish()
    }
}

impl Serialize for Substitution {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_found_is_replaced() {
        for (pattern, rewrite, path, expected) in [
            ("/v([0-9]+)/(.*)", r"/\2/of/\1", "/v12/cart", "/cart/of/12"),
            ("one", "two", "/one/one", "/two/two"),
            ("/a(b)?", r"/x\1", "/a/ab", "/x/xb"),
            ("^/", r"\\\0", "/a", r"\/a"),
            ("x", "y", "/a", "/a"),
            ("", "-", "/a", "-/-a-"),
        ] {
            let substitution = Substitution::new(pattern, rewrite).unwrap();
            assert_eq!(substitution.replaced(path, 100).unwrap(), expected, "{substitution}");
        }
    }

    #[test]
    fn replacements_stop_growing() {
        let grows = Substitution::new("a", &"b".repeat(1000)).unwrap();
        let path = format!("/{}", "a".repeat(60_000));
        assert_eq!(grows.replaced(&path, 65_534), None);
        assert!(grows.replaced("/aaa", 3_001).is_some());
        assert_eq!(grows.replaced("/aaa", 3_000), None);
    }

    #[test]
    fn what_is_no_replacement_says_why() {
        for (pattern, rewrite, reason) in [
            ("(", "", "is no regular expression: unclosed group"),
            ("a", r"\1", "the expression has no group 1"),
            ("a", r"\x", "after a backslash there must be a digit or a backslash"),
            ("a", r"a\", "after a backslash there must be a digit or a backslash"),
        ] {
            let error = Substitution::new(pattern, rewrite).unwrap_err();
            assert_eq!(error.to_string(), reason, "{pattern} {rewrite}");
        }
    }
}
