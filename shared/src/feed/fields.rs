//! Typed reading of a tree, which remembers what was read.
//!
//! Invariants: every field ends in exactly one of three ways: a reader took it, a reader named it
//! as foreign (it says nothing to a mesh), or [`Fields::finish`] reports it as unknown. A value of
//! the wrong type is reported where it is read.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use crate::feed::verdict::Cause;
use crate::feed::yaml::{Entry, Node, Used, Value};

/// Something to say about a field of one object.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) line: u32,
    pub(crate) field: String,
    pub(crate) cause: Cause,
    pub(crate) reason: String,
}

/// The problems of one object, as they are found.
pub(crate) type Problems = RefCell<Vec<Problem>>;

/// A mapping that is being read.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    node: &'a Node,
    path: String,
    problems: &'a Problems,
}

impl<'a> Fields<'a> {
    /// Starts at the root of an object.
    pub(crate) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        node.used.set(Used::Entered);
        Self { node, path: String::new(), problems }
    }

    /// The mapping itself.
    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    /// Where the mapping is, from the root of the object.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Reports something about the field `name`, or about this mapping when it is "".
    pub(crate) fn report(&self, name: &str, cause: Cause, reason: impl Display) {
        let line = self.entry(name).map_or(self.node.line, |entry| entry.line);
        self.say(line, self.path_of(name), cause, &reason);
    }

    /// Whether the field is there with a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some_and(|entry| !matches!(entry.node.value, Value::Null))
    }

    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let node = self.take(name)?;
        let text = as_text(node);
        self.expect(name, text, "a text; quote it if it looks like a number or a boolean")
    }

    /// The text of a field, parsed.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(name, Cause::Invalid, error);
                None
            }
        }
    }

    /// The number of a field, when it fits `T`.
    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        let node = self.take(name)?;
        let number = match &node.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        };
        self.expect(name, number, "a number in range")
    }

    /// The boolean of a field.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let node = self.take(name)?;
        let flag = match &node.value {
            Value::Scalar { text, plain: true } => match &**text {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            _ => None,
        };
        self.expect(name, flag, "true or false")
    }

    /// A number or a name: `Ok` or `Err`.
    pub(crate) fn number_or_text(&self, name: &str) -> Option<Result<u16, &'a str>> {
        let node = self.take(name)?;
        let value = match &node.value {
            Value::Scalar { text, plain: true } if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().map(Ok)
            }
            Value::Scalar { text, .. } => Some(Err(&**text)),
            _ => None,
        };
        self.expect(name, value, "a port number or a port name")
    }

    /// The mapping of a field.
    pub(crate) fn fields(&self, name: &str) -> Option<Self> {
        let entry = self.entry(name)?;
        self.enter(&entry.node, self.path_of(name))
    }

    /// The mappings of a list.
    pub(crate) fn each(&self, name: &str) -> Vec<Self> {
        let path = self.path_of(name);
        let items = self.items(name).iter().enumerate();
        items.filter_map(|(at, item)| self.enter(item, format!("{path}[{at}]"))).collect()
    }

    /// The mappings of a list that is refused when it is longer than `most`.
    pub(crate) fn at_most(&self, name: &str, most: usize) -> Vec<Self> {
        let mut items = self.each(name);
        if items.len() > most {
            let reason = format!("has {} entries; there may be {most}", items.len());
            self.report(name, Cause::Invalid, reason);
            items.truncate(most);
        }
        items
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, name: &str) -> Vec<&'a str> {
        let mut texts = Vec::new();
        for (at, item) in self.items(name).iter().enumerate() {
            item.used.set(Used::Whole);
            match as_text(item) {
                Some(text) => texts.push(text),
                None => {
                    let field = format!("{}[{at}]", self.path_of(name));
                    self.say(item.line, field, Cause::Invalid, &"must be a text");
                }
            }
        }
        texts
    }

    /// The texts of a list, parsed; one that does not parse is reported and left out.
    pub(crate) fn parsed_list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let parse = |text| match parse(text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.report(name, Cause::Invalid, format_args!("\"{text}\": {reason}"));
                None
            }
        };
        self.texts(name).into_iter().filter_map(parse).collect()
    }

    /// The numbers of a list.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u16> {
        let items = self.items(name).iter().enumerate();
        let number = |(at, item): (usize, &Node)| {
            item.used.set(Used::Whole);
            let number = match &item.value {
                Value::Scalar { text, plain: true } => text.parse().ok(),
                _ => None,
            };
            if number.is_none() {
                let field = format!("{}[{at}]", self.path_of(name));
                self.say(item.line, field, Cause::Invalid, &"must be a number in range");
            }
            number
        };
        items.filter_map(number).collect()
    }

    /// A mapping of texts to texts, such as labels.
    pub(crate) fn pairs(&self, name: &str) -> Vec<(&'a str, &'a str)> {
        let Some(map) = self.fields(name) else { return Vec::new() };
        map.entries().iter().filter_map(|one| Some((&*one.key, map.text(&one.key)?))).collect()
    }

    /// The names of the fields that are there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries().iter().map(|entry| &*entry.key)
    }

    /// Names fields that say nothing to a mesh.
    pub(crate) fn foreign(&self, names: &[&str]) {
        for entry in self.entries().iter().filter(|entry| names.contains(&&*entry.key)) {
            entry.node.used.set(Used::Whole);
        }
    }

    /// Names fields that are real but not acted on. True when any is there.
    pub(crate) fn unsupported(&self, names: &[&str], reason: &str) -> bool {
        let mut any = false;
        for name in names.iter().filter(|name| self.has(name)) {
            self.take(name);
            self.report(name, Cause::Unsupported, reason);
            any = true;
        }
        any
    }

    /// Reports every field below that nobody took. True when there was one.
    pub(crate) fn finish(&self) -> bool {
        let before = self.problems.borrow().len();
        self.finish_node(self.node, &self.path);
        self.problems.borrow().len() > before
    }

    fn finish_node(&self, node: &Node, path: &str) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let path = join(path, &entry.key);
                    match entry.node.used.get() {
                        Used::Whole => {}
                        Used::Entered => self.finish_node(&entry.node, &path),
                        Used::No => {
                            self.say(entry.line, path, Cause::Unknown, &"no such field here");
                        }
                    }
                }
            }
            Value::List(items) => {
                let entered = items.iter().enumerate().filter(|(_, i)| i.used.get() != Used::Whole);
                for (at, item) in entered {
                    self.finish_node(item, &format!("{path}[{at}]"));
                }
            }
            Value::Null | Value::Scalar { .. } => {}
        }
    }

    fn items(&self, name: &str) -> &'a [Node] {
        let Some(entry) = self.entry(name) else { return &[] };
        match &entry.node.value {
            Value::List(items) => {
                entry.node.used.set(Used::Entered);
                items
            }
            Value::Null => {
                entry.node.used.set(Used::Whole);
                &[]
            }
            _ => {
                entry.node.used.set(Used::Whole);
                self.report(name, Cause::Invalid, "must be a list");
                &[]
            }
        }
    }

    fn enter(&self, node: &'a Node, path: String) -> Option<Self> {
        match &node.value {
            Value::Map(_) => {
                if node.used.get() == Used::No {
                    node.used.set(Used::Entered);
                }
                Some(Self { node, path, problems: self.problems })
            }
            Value::Null => {
                node.used.set(Used::Whole);
                None
            }
            _ => {
                node.used.set(Used::Whole);
                self.say(node.line, path, Cause::Invalid, &"must be a mapping");
                None
            }
        }
    }

    /// A present value, which counts as read from here on.
    fn take(&self, name: &str) -> Option<&'a Node> {
        let entry = self.entry(name)?;
        entry.node.used.set(Used::Whole);
        (!matches!(entry.node.value, Value::Null)).then_some(&entry.node)
    }

    fn expect<T>(&self, name: &str, value: Option<T>, wanted: &str) -> Option<T> {
        if value.is_none() {
            self.report(name, Cause::Invalid, format_args!("must be {wanted}"));
        }
        value
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries().iter().find(|entry| *entry.key == *name)
    }

    fn entries(&self) -> &'a [Entry] {
        match &self.node.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    fn path_of(&self, name: &str) -> String {
        if name.is_empty() { self.path.clone() } else { join(&self.path, name) }
    }

    fn say(&self, line: u32, field: String, cause: Cause, reason: &dyn Display) {
        let reason = reason.to_string();
        self.problems.borrow_mut().push(Problem { line, field, cause, reason });
    }
}

/// A text; a plain scalar that YAML takes for a number or a boolean is none (as in Kubernetes).
fn as_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, plain: false } => Some(text),
        Value::Scalar { text, plain: true } => {
            let is_boolean =
                matches!(&**text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE");
            let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
                && text.parse::<f64>().is_ok();
            (!is_boolean && !is_number).then_some(text)
        }
        _ => None,
    }
}

fn join(path: &str, name: &str) -> String {
    match (path.is_empty(), name.contains(['.', '/'])) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{path}[\"{name}\"]"),
        (false, false) => format!("{path}.{name}"),
    }
}
