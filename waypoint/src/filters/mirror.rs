//! Copies of requests.

use shared::mesh::{self, Destination};

/// A backend that gets copies of some requests.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where they go.
    pub backend: Destination,
    /// So many of `denominator` requests.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

impl Mirror {
    /// Nothing when the backend is invalid: a copy that cannot be sent is left out.
    pub(super) fn new(mirror: &mesh::Mirror) -> Option<Self> {
        let backend = mirror.target.clone().ok()?;
        let (numerator, denominator) = (mirror.numerator, mirror.denominator.max(1));
        Some(Self { backend, numerator, denominator })
    }

    /// Whether a request that drew this number is copied.
    pub fn wants(&self, draw: u64) -> bool {
        draw % u64::from(self.denominator) < u64::from(self.numerator)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::mesh::sample;

    use super::*;

    #[test]
    fn the_share_is_exact() {
        let destination =
            Destination { service: sample::service_key("a", "b"), port: 80, subset: None };
        for (numerator, denominator) in [(0, 100), (1, 3), (50, 100), (100, 100)] {
            let target = Ok(destination.clone());
            let mirror = mesh::Mirror { target, numerator, denominator };
            let mirror = Mirror::new(&mirror).unwrap();
            let draws = 0..u64::from(denominator) * 7;
            let copied = draws.filter(|draw| mirror.wants(*draw)).count();
            assert_eq!(copied, numerator as usize * 7, "{numerator} of {denominator}");
        }
        let target = Err(Arc::from("there is no service"));
        assert!(Mirror::new(&mesh::Mirror { target, numerator: 1, denominator: 1 }).is_none());
    }
}
