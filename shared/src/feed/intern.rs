//! One copy of each text: names, labels and identities repeat across the objects of a mesh, and the
//! pods of one deployment have all their labels in common.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::feed::object::Labels;
use crate::identity::{ParseError, SpiffeId, TrustDomain};

/// Shares equal texts, sets of labels and identities.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    identities: HashMap<(Arc<str>, Arc<str>), SpiffeId>,
}

impl Interner {
    /// The shared copy of `text`.
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.texts.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = text.into();
        self.texts.insert(shared.clone());
        shared
    }

    /// The shared copy of `labels`, which are in the order of their keys.
    pub(crate) fn labels(&mut self, labels: Vec<(Arc<str>, Arc<str>)>) -> Labels {
        if let Some(shared) = self.labels.get(&*labels) {
            return shared.clone();
        }
        let shared: Labels = labels.into();
        self.labels.insert(shared.clone());
        shared
    }

    /// The shared identity of a service account. An interner serves one trust domain.
    pub(crate) fn identity(
        &mut self,
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<SpiffeId, ParseError> {
        let key = (self.text(namespace), self.text(service_account));
        if let Some(shared) = self.identities.get(&key) {
            return Ok(shared.clone());
        }
        let identity = SpiffeId::new(trust_domain.clone(), namespace, service_account)?;
        self.identities.insert(key, identity.clone());
        Ok(identity)
    }

    /// Forgets what nobody else holds.
    pub(crate) fn sweep(&mut self) {
        self.identities.clear();
        // Before the texts, which they hold.
        self.labels.retain(|labels| Arc::strong_count(labels) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(intern: &mut Interner, app: &str) -> Labels {
        let label = (intern.text("app"), intern.text(app));
        intern.labels(vec![label])
    }

    #[test]
    fn equal_labels_are_one_allocation() {
        let mut intern = Interner::default();
        let (one, same) = (labels(&mut intern, "a"), labels(&mut intern, "a"));
        assert!(Arc::ptr_eq(&one, &same));
        assert_ne!(one, labels(&mut intern, "b"));
    }

    #[test]
    fn what_nobody_holds_is_forgotten_with_its_texts() {
        let mut intern = Interner::default();
        let kept = labels(&mut intern, "kept");
        drop(labels(&mut intern, "gone"));
        intern.sweep();
        let texts: HashSet<&str> = intern.texts.iter().map(|text| &**text).collect();
        assert_eq!(texts, HashSet::from(["app", "kept"]));
        assert!(Arc::ptr_eq(&kept, &labels(&mut intern, "kept")));
    }
}
