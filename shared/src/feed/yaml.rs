//! YAML documents as trees that know their lines and which of their parts were read.
//!
//! Invariants: building never recurses, depth is bounded, and a file makes at most one node per
//! byte, so that aliases cannot blow it up. Dropping recurses at most [`MAX_DEPTH`] deep.
//! Source: YAML 1.2.2, core schema; as in Kubernetes, keys are texts and unique.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// Kubernetes objects are some 20 levels deep at most.
const MAX_DEPTH: usize = 64;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
    pub(crate) used: Cell<Used>,
}

/// Whether somebody asked for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Used {
    /// Nobody did.
    No,
    /// Its children account for themselves.
    Entered,
    /// It was taken as a whole.
    Whole,
}

/// The value of a node.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Absent: `null`, `~` or nothing.
    Null,
    /// A scalar; only a plain one can be a number or a boolean.
    Scalar { text: Box<str>, plain: bool },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in order.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) line: u32,
    pub(crate) node: Node,
}

/// Why a file is no YAML that could hold objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The parser's own words.
    #[error("{text}")]
    Syntax { line: u32, text: String },
    /// Deeper than any object.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    Depth { line: u32 },
    /// More nodes than bytes.
    #[error("aliases expand to more than the file could hold")]
    Aliases { line: u32 },
    /// A key is a list or a mapping.
    #[error("a key must be a text")]
    Key { line: u32 },
    /// A key appears twice in one mapping.
    #[error("key \"{key}\" is there twice")]
    Duplicate { line: u32, key: Box<str> },
}

impl Error {
    pub(crate) fn line(&self) -> u32 {
        match self {
            Self::Syntax { line, .. }
            | Self::Depth { line }
            | Self::Aliases { line }
            | Self::Key { line }
            | Self::Duplicate { line, .. } => *line,
        }
    }
}

impl Node {
    fn new(line: u32, value: Value) -> Self {
        Self { line, value, used: Cell::new(Used::No) }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| 1 + entry.node.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => {
                entries.iter().map(|entry| entry.node.depth()).max().unwrap_or(0)
            }
        }
    }
}

/// The documents of a file, one after the other; empty ones are left out. An error is the last item:
/// what came before it is not all that the file holds.
pub(crate) fn documents(text: &str) -> Documents<'_> {
    let builder = Builder { budget: text.len() + 1, ..Builder::default() };
    Documents { parser: Parser::new_from_str(text), builder, failed: false }
}

/// Only the tree of the document that is asked for is in memory.
pub(crate) struct Documents<'a> {
    parser: Parser<'a, StrInput<'a>>,
    builder: Builder,
    failed: bool,
}

impl Documents<'_> {
    fn advance(&mut self) -> Result<Option<Node>, Error> {
        for event in &mut self.parser {
            let (event, span) = event.map_err(|error| Error::Syntax {
                line: error.marker().line() as u32,
                text: error.info().to_owned(),
            })?;
            self.builder.event(event, span.start.line() as u32)?;
            if let Some(document) = self.builder.document.take() {
                return Ok(Some(document));
            }
        }
        Ok(None)
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<Node, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// A collection that is still open.
#[derive(Debug)]
struct Open {
    line: u32,
    anchor: usize,
    kind: OpenKind,
}

#[derive(Debug)]
enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: HashSet<Box<str>>, key: Option<(Box<str>, u32)> },
}

#[derive(Debug, Default)]
struct Builder {
    /// The last one that ended.
    document: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    budget: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: u32) -> Result<(), Error> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(anchor) => {
                let mut node = self.anchors.get(&anchor).cloned().ok_or(Error::Aliases { line })?;
                node.line = line;
                self.spend(node.count(), line)?;
                if self.open.len() + node.depth() > MAX_DEPTH {
                    return Err(Error::Depth { line });
                }
                self.put(node, 0)
            }
            Event::Scalar(text, style, anchor, _) => {
                self.spend(1, line)?;
                let plain = style == ScalarStyle::Plain;
                let value = match (&*text, plain) {
                    ("" | "~" | "null" | "Null" | "NULL", true) => Value::Null,
                    (text, plain) => Value::Scalar { text: text.into(), plain },
                };
                self.put_scalar(&text, Node::new(line, value), anchor)
            }
            Event::SequenceStart(anchor, _) => self.enter(OpenKind::List(Vec::new()), anchor, line),
            Event::MappingStart(anchor, _) => {
                let (entries, keys, key) = Default::default();
                self.enter(OpenKind::Map { entries, keys, key }, anchor, line)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(closed) = self.open.pop() else { return Ok(()) };
                let value = match closed.kind {
                    OpenKind::List(items) => Value::List(items),
                    OpenKind::Map { entries, .. } => Value::Map(entries),
                };
                self.put(Node::new(closed.line, value), closed.anchor)
            }
        }
    }

    fn spend(&mut self, nodes: usize, line: u32) -> Result<(), Error> {
        self.budget = self.budget.checked_sub(nodes).ok_or(Error::Aliases { line })?;
        Ok(())
    }

    fn enter(&mut self, kind: OpenKind, anchor: usize, line: u32) -> Result<(), Error> {
        self.spend(1, line)?;
        if self.expects_key() {
            return Err(Error::Key { line });
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::Depth { line });
        }
        self.open.push(Open { line, anchor, kind });
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }))
    }

    fn put_scalar(&mut self, text: &str, node: Node, anchor: usize) -> Result<(), Error> {
        let Some(Open { kind: OpenKind::Map { keys, key: key @ None, .. }, .. }) =
            self.open.last_mut()
        else {
            return self.put(node, anchor);
        };
        if !keys.insert(text.into()) {
            return Err(Error::Duplicate { line: node.line, key: text.into() });
        }
        *key = Some((text.into(), node.line));
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Error> {
        if anchor != 0 {
            self.spend(node.count(), node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if matches!(node.value, Value::Null) => {}
            None => self.document = Some(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, key, .. }) => {
                let (key, line) = key.take().ok_or(Error::Key { line: node.line })?;
                entries.push(Entry { key, line, node });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Result<Vec<Node>, Error> {
        super::documents(text).collect()
    }

    fn keys(node: &Node) -> Vec<(&str, u32)> {
        match &node.value {
            Value::Map(entries) => entries.iter().map(|one| (&*one.key, one.line)).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn lines_are_kept_and_empty_documents_left_out() {
        let documents = documents("# none\n---\na: 1\nb:\n  - x\n---\n---\nc: ~\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(keys(&documents[0]), [("a", 3), ("b", 4)]);
        assert_eq!(keys(&documents[1]), [("c", 8)]);
    }

    #[test]
    fn aliases_repeat_a_value_but_cannot_explode() {
        let shared = documents("a: &x {b: 1}\nc: *x\n").unwrap();
        let Value::Map(entries) = &shared[0].value else { panic!("a mapping") };
        assert_eq!(keys(&entries[1].node), [("b", 1)]);
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let last = level - 1;
            let row = format!("*a{last},").repeat(9);
            bomb += &format!("a{level}: &a{level} [{}]\n", row.trim_end_matches(','));
        }
        assert!(matches!(documents(&bomb), Err(Error::Aliases { .. })));
        assert!(documents("a: *nowhere").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(documents(&deep).is_err());
        let nested: String = (0..80).map(|level| format!("{}k:\n", " ".repeat(level))).collect();
        assert!(matches!(documents(&nested), Err(Error::Depth { line: 65 })));
    }

    #[test]
    fn keys_are_unique_texts() {
        let twice = documents("a: 1\nb: 2\na: 3\n");
        assert_eq!(twice.unwrap_err(), Error::Duplicate { line: 3, key: "a".into() });
        assert!(matches!(documents("[a]: 1\n"), Err(Error::Key { .. })));
    }

    #[test]
    fn syntax_errors_have_a_line() {
        assert_eq!(documents("a: 1\nb: [1,\nc: 2\n").unwrap_err().line(), 3);
    }
}
