//! Join tokens as the authority keeps them: one file each, named by and holding a digest.
//!
//! Invariants: the secret is nowhere on disk; a token counts from the moment its file is there
//! until the moment it is gone, without a restart.

use std::time::SystemTime;

use shared::identity::join::{Credential, JoinToken, hex};
use zeroize::Zeroizing;

use super::Error;
use super::root::Root;
use super::state::State;

/// The tokens of one state directory.
#[derive(Debug, Clone)]
pub struct Tokens {
    state: State,
}

/// What is known about a token, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Token {
    /// The node that it belongs to.
    pub node: String,
    /// SHA-256 of the secret, in hexadecimal. Its first 16 digits are the token's id.
    pub digest: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Token {
    /// The name that [`Tokens::revoke`] knows it by.
    pub fn id(&self) -> &str {
        self.digest.get(..16).unwrap_or(&self.digest)
    }
}

impl Tokens {
    /// The tokens in `state`.
    ///
    /// # Errors
    /// When their directory cannot be made or is open to others.
    pub fn open(state: &State) -> Result<Self, Error> {
        Ok(Self { state: state.within("tokens")? })
    }

    /// Makes a token for `node`. Earlier ones stay valid until they are revoked.
    ///
    /// # Errors
    /// When `node` is not a DNS-1123 name, or the token cannot be written.
    pub fn make(&self, node: &str, root: &Root) -> Result<Zeroizing<String>, Error> {
        let token =
            JoinToken::generate(node, root.digest()).map_err(|_| Error::Token(node.to_owned()))?;
        let known = Token {
            node: node.to_owned(),
            digest: hex(&token.credential().digest()),
            created: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        let content = serde_json::to_vec(&known).unwrap_or_default();
        self.state.create(known.id(), &content)?;
        Ok(token.expose())
    }

    /// All tokens, by id.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list(&self) -> Result<Vec<Token>, Error> {
        let names = self.state.names()?;
        names.iter().filter_map(|name| self.find(name).transpose()).collect()
    }

    /// Revokes the token with the id `which`, or all tokens of the node `which`. Returns how many.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn revoke(&self, which: &str) -> Result<usize, Error> {
        let mut revoked = 0;
        for token in self.list()? {
            if token.id() == which || token.node == which {
                revoked += usize::from(self.state.remove(token.id())?);
            }
        }
        Ok(revoked)
    }

    /// Whether `credential` is a token that counts now.
    ///
    /// # Errors
    /// When the state cannot be read: then nobody is let in.
    pub fn accept(&self, credential: &Credential) -> Result<bool, Error> {
        let digest = hex(&credential.digest());
        // The digest decides the file, so nothing is compared that an attacker could time.
        let known = self.find(&digest[..16])?;
        Ok(known.is_some_and(|known| known.digest == digest && known.node == credential.node()))
    }

    fn find(&self, id: &str) -> Result<Option<Token>, Error> {
        let Some(content) = self.state.read(id)? else { return Ok(None) };
        let token = serde_json::from_slice(&content);
        if token.is_err() {
            tracing::warn!(file = %self.state.path(id).display(), "join token is damaged, ignored");
        }
        Ok(token.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Constraints;
    use crate::ca::test_support::Scratch;

    fn tokens(scratch: &Scratch) -> (Tokens, Root) {
        let state = State::open(&scratch.path().join("s")).unwrap();
        let root = Root::open(&state, &Default::default(), Constraints::On).unwrap();
        (Tokens::open(&state).unwrap(), root)
    }

    fn credential(text: &str) -> Credential {
        text.parse::<JoinToken>().unwrap().credential()
    }

    #[test]
    fn token_counts_until_it_is_revoked() {
        let scratch = Scratch::new("tokens-revoke");
        let (tokens, root) = tokens(&scratch);
        let (one, two) = (tokens.make("a", &root).unwrap(), tokens.make("b", &root).unwrap());
        assert!(tokens.accept(&credential(&one)).unwrap());
        assert_eq!(tokens.list().unwrap().len(), 2);
        assert_eq!(tokens.revoke("a").unwrap(), 1);
        assert!(!tokens.accept(&credential(&one)).unwrap());
        assert!(tokens.accept(&credential(&two)).unwrap());
        let id = tokens.list().unwrap()[0].id().to_owned();
        assert_eq!(tokens.revoke(&id).unwrap(), 1);
        assert_eq!(tokens.revoke(&id).unwrap(), 0);
    }

    #[test]
    fn token_of_another_authority_or_for_another_name_is_foreign() {
        let (scratch, elsewhere) = (Scratch::new("tokens-a"), Scratch::new("tokens-b"));
        let ((ours, root), (theirs, their_root)) = (tokens(&scratch), tokens(&elsewhere));
        let foreign = theirs.make("a", &their_root).unwrap();
        assert!(!ours.accept(&credential(&foreign)).unwrap());
        let renamed = ours.make("a", &root).unwrap().replace(":a:", ":b:");
        assert!(!ours.accept(&credential(&renamed)).unwrap());
    }

    #[test]
    fn secret_is_not_on_disk() {
        let scratch = Scratch::new("tokens-secret");
        let (tokens, root) = tokens(&scratch);
        let token = tokens.make("a", &root).unwrap();
        let secret = token.split(':').nth(2).unwrap();
        for name in tokens.state.names().unwrap() {
            let content = tokens.state.read(&name).unwrap().unwrap();
            assert!(!String::from_utf8_lossy(&content).contains(secret));
        }
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let scratch = Scratch::new("tokens-name");
        let (tokens, root) = tokens(&scratch);
        for name in ["", "A", "../a", "a:b"] {
            assert!(tokens.make(name, &root).is_err(), "{name}");
        }
    }
}
