//! Which modules a source file names: its `use` trees and full paths, resolved to absolute paths.
//!
//! Not here: method calls and inferred types; what a file uses it must have named somewhere.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use syn::visit::{self, Visit};

/// The absolute path of a module, `crate::module::…` with the crate's name first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModulePath(Vec<String>);

impl ModulePath {
    pub(crate) fn new(path: &str) -> Self {
        Self(path.split("::").map(str::to_owned).collect())
    }

    /// The module of `file`, given relative to the `src` folder of crate `name`.
    pub(crate) fn of_file(name: &str, file: &Path) -> Self {
        let mut pieces = vec![name.to_owned()];
        let stem = file.with_extension("");
        pieces.extend(stem.iter().map(|piece| piece.to_string_lossy().into_owned()));
        if pieces.len() == 2 && (pieces[1] == "lib" || pieces[1] == "main") {
            pieces.pop();
        }
        Self(pieces)
    }

    fn child(&self, name: &str) -> Self {
        let mut pieces = self.0.clone();
        pieces.push(name.to_owned());
        Self(pieces)
    }
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("::"))
    }
}

/// A named path and the line that names it.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) path: String,
    pub(crate) line: usize,
}

/// Every path that `source`, the file of `module`, names, as absolute paths.
pub(crate) fn references(module: &ModulePath, source: &str) -> syn::Result<Vec<Reference>> {
    let file = syn::parse_file(source)?;
    let mut reader = Reader { scopes: vec![Scope::new(module.clone())], found: Vec::new() };
    reader.read_items(&file.items);
    visit::visit_file(&mut reader, &file);
    Ok(reader.found)
}

struct Scope {
    module: ModulePath,
    aliases: HashMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    children: Vec<String>,
}

impl Scope {
    fn new(module: ModulePath) -> Self {
        Self { module, aliases: HashMap::new(), globs: Vec::new(), children: Vec::new() }
    }
}

struct Reader {
    scopes: Vec<Scope>,
    found: Vec<Reference>,
}

impl Reader {
    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the file's own scope stays")
    }

    /// Learns the names that this scope's `mod` and `use` items bind, before paths are resolved.
    fn read_items(&mut self, items: &[syn::Item]) {
        for item in items {
            if let syn::Item::Mod(module) = item {
                self.scope().children.push(module.ident.to_string());
            }
        }
        for item in items {
            if let syn::Item::Use(item) = item {
                self.read_tree(&item.tree, Vec::new());
            }
        }
    }

    fn read_tree(&mut self, tree: &syn::UseTree, mut prefix: Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.read_tree(&path.tree, prefix);
            }
            syn::UseTree::Name(name) => {
                let text = name.ident.to_string();
                let bound =
                    if text == "self" { prefix.last().cloned() } else { Some(text.clone()) };
                if text != "self" {
                    prefix.push(text);
                }
                self.bind(bound, prefix, name.ident.span());
            }
            syn::UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    prefix.push(rename.ident.to_string());
                }
                self.bind(Some(rename.rename.to_string()), prefix, rename.rename.span());
            }
            syn::UseTree::Glob(glob) => {
                let absolute = self.resolve(&prefix);
                let line = glob.star_token.spans[0].start().line;
                self.found.push(Reference { path: absolute.join("::"), line });
                self.scope().globs.push(absolute);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_tree(tree, prefix.clone());
                }
            }
        }
    }

    fn bind(&mut self, name: Option<String>, path: Vec<String>, span: proc_macro2::Span) {
        let absolute = self.resolve(&path);
        self.found.push(Reference { path: absolute.join("::"), line: span.start().line });
        if let Some(name) = name {
            self.scope().aliases.insert(name, absolute);
        }
    }

    /// The absolute form of `path` as written in the current scope.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let scope = self.scopes.last().expect("the file's own scope stays");
        let Some(first) = path.first() else { return Vec::new() };
        let mut absolute = match first.as_str() {
            "crate" => vec![scope.module.0[0].clone()],
            "self" => scope.module.0.clone(),
            "super" => scope.module.0[..scope.module.0.len() - 1].to_vec(),
            name => {
                if let Some(alias) = scope.aliases.get(name) {
                    alias.clone()
                } else if scope.children.iter().any(|child| child == name) {
                    scope.module.child(name).0
                } else if path.len() > 1
                    && let Some(glob) = scope.globs.first()
                    && name.starts_with(|letter: char| letter.is_ascii_lowercase())
                {
                    let mut through = glob.clone();
                    through.push(name.to_owned());
                    through
                } else {
                    vec![name.to_owned()]
                }
            }
        };
        for piece in &path[1..] {
            if piece == "super" {
                absolute.pop();
            } else if piece != "self" {
                absolute.push(piece.clone());
            }
        }
        absolute
    }

    /// Macro arguments are plain tokens: every `a::b::…` run in them counts as a path.
    fn read_tokens(&mut self, tokens: proc_macro2::TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut line = 0;
        for token in tokens {
            match token {
                proc_macro2::TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_run(&mut path, line);
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_run(&mut path, line);
                    colons = 0;
                    if let proc_macro2::TokenTree::Group(group) = other {
                        self.read_tokens(group.stream());
                    }
                }
            }
        }
        self.end_run(&mut path, line);
    }

    fn end_run(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            let absolute = self.resolve(path);
            self.found.push(Reference { path: absolute.join("::"), line });
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, _: &'ast syn::ItemUse) {}

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if let Some((_, items)) = &item.content {
            let module = self.scope().module.child(&item.ident.to_string());
            self.scopes.push(Scope::new(module));
            self.read_items(items);
            visit::visit_item_mod(self, item);
            self.scopes.pop();
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        for statement in &block.stmts {
            if let syn::Stmt::Item(item) = statement {
                self.read_items(std::slice::from_ref(item));
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let pieces: Vec<String> =
            path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if pieces.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            let absolute =
                if path.leading_colon.is_some() { pieces } else { self.resolve(&pieces) };
            // A path through an alias repeats what its `use` already named.
            let through_alias = path.leading_colon.is_none()
                && self.scopes.last().is_some_and(|scope| {
                    let first = path.segments[0].ident.to_string();
                    scope.aliases.get(&first).is_some_and(|alias| alias.len() > 1)
                });
            if !through_alias {
                self.found.push(Reference { path: absolute.join("::"), line });
            }
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.read_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}
