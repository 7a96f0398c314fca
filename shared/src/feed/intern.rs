//! One copy of each text: names, labels and identities repeat across the objects of a mesh.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::identity::{ParseError, SpiffeId, TrustDomain};

/// Shares equal texts and identities.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: HashSet<Arc<str>>,
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
        self.texts.retain(|text| Arc::strong_count(text) > 1);
    }
}
