//! What is known of a directory between two readings: the objects of each file, and which are in
//! force.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::feed::compile::{Compiled, Options, compile};
use crate::feed::dir::Status;
use crate::feed::dir::read::Content;
use crate::feed::intern::Interner;
use crate::feed::object::{self, Object, ObjectKey, Reading};
use crate::feed::verdict::{Cause, Verdict};
use crate::feed::yaml;

/// The directory as last read.
#[derive(Debug)]
pub(super) struct State {
    options: Options,
    intern: Interner,
    files: BTreeMap<Arc<str>, FileState>,
    /// In the order of their keys.
    in_force: Vec<Arc<Object>>,
}

/// One file as last read.
#[derive(Debug, Default)]
struct FileState {
    readings: Vec<Reading>,
    verdicts: Vec<Verdict>,
    /// Digest of the text that `readings` come from, while they are what the file holds.
    digest: Option<u64>,
    /// Whether it could be parsed at any time since the start.
    was_good: bool,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        let (intern, files, in_force) = Default::default();
        Self { options, intern, files, in_force }
    }

    /// Takes a reading of all files; says whether it differs from the last one.
    pub(super) fn take(&mut self, contents: BTreeMap<Arc<str>, Content>) -> bool {
        let known = self.files.len();
        self.files.retain(|path, _| contents.contains_key(path));
        let mut differs = self.files.len() < known;
        for (path, content) in contents {
            differs |= match content {
                Content::Unchanged => false,
                Content::Text(text) => self.parse(&path, &text),
                Content::Unreadable(reason) => self.refuse(&path, 0, &reason),
            };
        }
        differs
    }

    /// Decides what is in force now, and compiles it.
    pub(super) fn compile(&mut self) -> (Compiled, Status) {
        let mut verdicts = Vec::new();
        self.settle(&mut verdicts);
        let mut compiled = compile(&self.in_force, &self.options, &mut self.intern);
        compiled.verdicts.append(&mut verdicts);
        compiled.verdicts.sort_unstable();
        compiled.verdicts.dedup();
        self.intern.sweep();
        let status = Status {
            files: self.files.len(),
            objects: self.in_force.len(),
            absent_files: self.files.values().filter(|file| !file.was_good).count(),
        };
        (compiled, status)
    }

    /// Whether it differs from what is known of the file.
    fn parse(&mut self, path: &Arc<str>, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let digest = Some(hasher.finish());
        if self.files.get(path).is_some_and(|file| file.digest == digest) {
            return false;
        }
        let mut file = FileState { digest, was_good: true, ..FileState::default() };
        for document in yaml::documents(text) {
            let document = match document {
                Ok(document) => document,
                Err(error) => return self.refuse(path, error.line(), &error.to_string()),
            };
            file.readings.extend(object::read(
                &document,
                path,
                &self.options,
                &mut self.intern,
                &mut file.verdicts,
            ));
        }
        file.readings.shrink_to_fit();
        self.files.insert(path.clone(), file);
        true
    }

    /// Keeps what the file held before it went bad; says whether it is bad in a new way.
    fn refuse(&mut self, path: &Arc<str>, line: u32, reason: &str) -> bool {
        let file = self.files.entry(path.clone()).or_default();
        let instead = match file.was_good {
            true => "the objects that were read from it before stay in force",
            false => "its objects are absent",
        };
        let verdicts = vec![Verdict {
            file: path.clone(),
            line,
            object: "".into(),
            field: "".into(),
            in_force: false,
            cause: Cause::Unreadable,
            reason: format!("{reason}; {instead}").into(),
        }];
        let differs = file.digest.take().is_some() || file.verdicts != verdicts;
        file.verdicts = verdicts;
        differs
    }

    /// Decides which objects are in force: the first good one of each key, in order of files; else
    /// the last good version of an invalid one.
    fn settle(&mut self, verdicts: &mut Vec<Verdict>) {
        let mut chosen: Vec<Arc<Object>> = Vec::new();
        let mut invalid: Vec<&ObjectKey> = Vec::new();
        for file in self.files.values() {
            verdicts.extend(file.verdicts.iter().cloned());
            for reading in &file.readings {
                match reading {
                    Reading::Nothing => {}
                    Reading::Invalid(key) => invalid.push(key),
                    Reading::Good(object) => chosen.push(object.clone()),
                }
            }
        }
        // Stable: those of one key stay in the order of their files.
        chosen.sort_by(|one, other| one.key.cmp(&other.key));
        chosen.dedup_by(|object, first| {
            let shadowed = object.key == first.key;
            if shadowed {
                let place = format!("{}:{} comes first", first.file, first.line);
                verdicts.push(object.verdict("", Cause::Shadowed, place));
            }
            shadowed
        });
        invalid.sort_unstable();
        invalid.dedup();
        invalid.retain(|key| find(&chosen, key).is_none());
        let kept = invalid.into_iter().filter_map(|key| find(&self.in_force, key));
        for last in kept {
            let reason = "the last good version of this object stays in force";
            verdicts.push(last.verdict("", Cause::Invalid, reason));
            chosen.push(last.clone());
        }
        chosen.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        chosen.shrink_to_fit();
        self.in_force = chosen;
    }
}

/// The object of this key, of those in the order of their keys.
fn find<'a>(objects: &'a [Arc<Object>], key: &ObjectKey) -> Option<&'a Arc<Object>> {
    let at = objects.binary_search_by(|object| object.key.cmp(key)).ok()?;
    Some(&objects[at])
}
