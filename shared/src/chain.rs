//! An error in words: what was attempted, and everything that stood in the way.

use std::error::Error;
use std::fmt;

/// Displays an error with all that caused it, so that one line says why.
///
/// ```
/// # use shared::chain::Chain;
/// #[derive(Debug, thiserror::Error)]
/// #[error("read the key")]
/// struct Unread(#[source] std::io::Error);
///
/// let error = Unread(std::io::Error::other("no such disk"));
/// assert_eq!(Chain(&error).to_string(), "read the key: no such disk");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
