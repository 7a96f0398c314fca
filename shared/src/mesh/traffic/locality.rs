//! `localityLbSetting`.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::mesh::{Locality, Scope};

/// Which endpoints are preferred for where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalityPreference {
    /// `enabled: false`: where an endpoint is does not count.
    Off,
    /// Endpoints that share more of the leading scopes come first; others get what these cannot take.
    Failover {
        /// In the order of importance.
        scopes: Box<[Scope]>,
        /// Regions whose endpoints come before those of other regions: from, to.
        regions: Box<[(Arc<str>, Arc<str>)]>,
    },
    /// Requests are parted by weights, which the first entry says that is for where the waypoint is.
    Distribute(Box<[Distribution]>),
}

impl Default for LocalityPreference {
    /// Istio: region, zone, subzone.
    fn default() -> Self {
        let scopes = [Scope::Region, Scope::Zone, Scope::Subzone].into();
        Self::Failover { scopes, regions: Box::default() }
    }
}

/// How requests are parted that come from somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Where they come from.
    pub from: LocalityPattern,
    /// Where they go, in percent. Nowhere else.
    pub to: Box<[(LocalityPattern, u32)]>,
}

/// `region/zone/subzone`, of which the end may be left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityPattern {
    parts: Box<[Arc<str>]>,
}

impl LocalityPattern {
    /// From names with `*` for the last one, where all are meant; none when it is no locality.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Box<[Arc<str>]> = match text {
            "*" => Box::default(),
            _ => text.strip_suffix("/*").unwrap_or(text).split('/').map(Arc::from).collect(),
        };
        let is_name = |part: &Arc<str>| !part.is_empty() && !part.contains('*');
        (parts.len() <= 3 && parts.iter().all(is_name)).then_some(Self { parts })
    }

    /// Whether `locality` is meant.
    pub fn matches(&self, locality: &Locality) -> bool {
        let names = [&locality.region, &locality.zone, &locality.subzone];
        self.parts.iter().zip(names).all(|(part, name)| part == name)
    }

    /// Whether there is a locality that both mean.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.parts.iter().zip(&other.parts).all(|(one, other)| one == other)
    }
}

impl fmt::Display for LocalityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            write!(f, "{part}/")?;
        }
        f.write_str("*")
    }
}

impl Serialize for LocalityPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::sample;

    #[test]
    fn patterns_are_localities_with_an_open_end() {
        let all = [
            sample::locality("r1", "z1"),
            sample::locality("r1", "z2"),
            sample::locality("r2", "z1"),
        ];
        for (text, expected) in [
            ("*", [true, true, true]),
            ("r1", [true, true, false]),
            ("r1/*", [true, true, false]),
            ("r1/z1", [true, false, false]),
            ("r1/z1/*", [true, false, false]),
            ("r1/z1/s1", [false; 3]),
        ] {
            let pattern = LocalityPattern::parse(text).unwrap();
            assert_eq!(all.each_ref().map(|one| pattern.matches(one)), expected, "{text}");
        }
        for text in
            ["", "/", "r1/", "r1//s1", "r*/z1", "*/z1", "r1/z1/s1/more", "r1/z1/s1/*/x", "**"]
        {
            assert_eq!(LocalityPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn two_patterns_overlap_if_one_goes_on_where_the_other_is_open() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| LocalityPattern::parse(text).unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("*", "r1") && overlap("r1/*", "r1/z1") && overlap("r1/z1", "r1/z1/s1"));
        assert!(!overlap("r1", "r2") && !overlap("r1/z1", "r1/z2/*"));
    }
}
