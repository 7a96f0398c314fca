//! Which endpoint a key belongs to: a ring, or a Maglev table.
//!
//! Invariants: the same endpoints give the same table everywhere, in whatever order they come; every
//! endpoint with a weight is found from every key; the keys of one endpoint that leaves are all that
//! move.
//! Source: Envoy's ring hash and Maglev (spec L7 §3.4); orders of places as in Maglev, NSDI 2016, §3.4,
//! but not its turns.

use crate::balance::hash::xxh64;
use crate::mesh::HashTable;

/// Places of a ring for each endpoint, so that shares differ by some 3 %; with fewer, one that leaves
/// may move half as many keys again as its share.
const PLACES_EACH: usize = 1_024;
/// Most places of a ring: 768 KiB.
const MOST_PLACES: usize = 65_536;

/// Endpoints by key.
#[derive(Debug)]
pub enum Table {
    /// Hashes in ascending order, and whose they are.
    Ring(Box<[(u64, u32)]>),
    /// Whose a hash is, by its remainder.
    Maglev(Box<[u32]>),
}

impl Table {
    /// The table of endpoints with these names and weights; those of weight 0 have no place.
    pub fn new(kind: HashTable, endpoints: &[(String, u32)]) -> Self {
        match kind {
            HashTable::Ring(least) => Self::ring(least as usize, endpoints),
            HashTable::Maglev(size) => Self::maglev(size as usize, endpoints),
        }
    }

    /// The endpoints in the order in which a key prefers them, each once.
    pub fn order(&self, key: u64) -> impl Iterator<Item = usize> {
        let (start, count) = match self {
            Self::Ring(places) => (places.partition_point(|(hash, _)| *hash < key), places.len()),
            Self::Maglev(places) => {
                let count = places.len().max(1) as u64;
                ((key % count) as usize, places.len())
            }
        };
        let at = move |place: usize| match self {
            Self::Ring(places) => places[place % count].1 as usize,
            Self::Maglev(places) => places[place % count] as usize,
        };
        let mut seen = Vec::new();
        (0..count).filter_map(move |step| {
            let endpoint = at(start + step);
            (!seen.contains(&endpoint)).then(|| {
                seen.push(endpoint);
                endpoint
            })
        })
    }

    fn ring(least: usize, endpoints: &[(String, u32)]) -> Self {
        let all: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let count = endpoints.iter().filter(|(_, weight)| *weight > 0).count();
        let size = (PLACES_EACH * count).max(least).min(MOST_PLACES) as u64;
        let mut places = Vec::with_capacity(size as usize + count);
        for (at, (name, weight)) in endpoints.iter().enumerate().filter(|(_, (_, w))| *w > 0) {
            let own = (size * u64::from(*weight)).div_ceil(all);
            for number in 0..own {
                let hash = xxh64(format!("{name}_{number}").as_bytes(), 0);
                places.push((hash, at as u32));
            }
        }
        // Of equal hashes the smaller name comes first, so that order says nothing.
        places.sort_unstable_by(|one, other| {
            let name = |place: &(u64, u32)| &endpoints[place.1 as usize].0;
            one.0.cmp(&other.0).then_with(|| name(one).cmp(name(other)))
        });
        Self::Ring(places.into())
    }

    /// Each endpoint claims places in an order of its own, the sooner the heavier it is, and a place is
    /// whose claim comes first. That is between two endpoints and no matter of others, so nothing else
    /// moves when one of them leaves. (In the original everybody has as many turns and claims until a
    /// place is free: more even, and each place that is freed moves others.)
    fn maglev(size: usize, endpoints: &[(String, u32)]) -> Self {
        let mut weights = endpoints.iter().map(|(_, weight)| *weight).filter(|weight| *weight > 0);
        let Some(first) = weights.next().filter(|_| size > 0) else {
            return Self::Maglev(Box::default());
        };
        let alike = weights.all(|weight| weight == first);
        let weighty = endpoints.iter().enumerate().filter(|(_, (_, weight))| *weight > 0);
        let mut all: Vec<Claims> = weighty
            .map(|(at, (name, weight))| {
                Claims::new((at, name), (!alike).then(|| f64::from(*weight)), size)
            })
            .collect();
        // Of equal claims the smaller name's is the first.
        all.sort_by(|one, other| endpoints[one.at].0.cmp(&endpoints[other.at].0));
        let mut places = vec![u32::MAX; size];
        let mut since = vec![f64::INFINITY; size];
        let until = Claims::until(&all, size);
        all.iter().for_each(|one| one.make(until, &mut places, &mut since));
        for (place, owner) in places.iter_mut().enumerate().filter(|(_, at)| **at == u32::MAX) {
            let time = |one: &&Claims| one.time(one.number(place));
            let soonest = all.iter().min_by(|one, other| time(one).total_cmp(&time(other)));
            *owner = soonest.map_or(0, |one| one.at as u32);
        }
        Self::Maglev(places.into())
    }
}

/// The claims of one endpoint to the places of a Maglev table.
struct Claims {
    at: usize,
    /// None where all are alike.
    weight: Option<f64>,
    size: usize,
    /// The place of the first claim.
    start: usize,
    /// From a place to that of the next claim.
    skip: usize,
    /// Number of the claim to place 1, if the first is to place 0.
    unit: usize,
}

impl Claims {
    fn new((at, name): (usize, &str), weight: Option<f64>, size: usize) -> Self {
        let modulo = |hash: u64, size: usize| (hash % size.max(1) as u64) as usize;
        let start = modulo(xxh64(name.as_bytes(), 0), size);
        let skip = modulo(xxh64(name.as_bytes(), 1), size.saturating_sub(1)) + 1;
        Self { at, weight, size, start, skip, unit: inverse(skip, size) }
    }

    /// When the claim of this number is made: as late as if claims came by chance at the rate of the
    /// weight, so that places are won in proportion to weights. Where those are alike, in turn.
    fn time(&self, number: usize) -> f64 {
        let Some(weight) = self.weight else { return number as f64 };
        let passed = (number as f64 + 0.5) / self.size as f64;
        -(1.0 - passed).ln() / weight
    }

    /// The number of the claim to `place`.
    fn number(&self, place: usize) -> usize {
        product(place + self.size - self.start, self.unit, self.size)
    }

    /// By when of n endpoints one place in n is left. To look whose that is costs less than to go on:
    /// most claims are then to places that are taken.
    fn until(all: &[Self], size: usize) -> f64 {
        let count = all.len() as f64;
        let weights: Option<f64> = all.iter().map(|one| one.weight).sum();
        weights.map_or_else(
            || size as f64 * (1.0 - (-count.ln() / count).exp()),
            |weights| count.ln() / weights,
        )
    }

    /// Makes all that are due by then. Each comes to another place, because the size is prime.
    fn make(&self, until: f64, places: &mut [u32], since: &mut [f64]) {
        let mut place = self.start;
        for number in 0..self.size {
            let time = self.time(number);
            if time > until {
                return;
            }
            if time < since[place] {
                since[place] = time;
                places[place] = self.at as u32;
            }
            place += self.skip;
            if place >= self.size {
                place -= self.size;
            }
        }
    }
}

/// What `number` must be multiplied by to give 1, modulo a prime (Fermat's little theorem).
fn inverse(number: usize, prime: usize) -> usize {
    let (mut power, mut base, mut left) = (1, number % prime, prime.saturating_sub(2));
    while left > 0 {
        if left % 2 == 1 {
            power = product(power, base, prime);
        }
        base = product(base, base, prime);
        left /= 2;
    }
    power
}

fn product(one: usize, other: usize, modulus: usize) -> usize {
    (one as u64 * other as u64 % modulus as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RING: HashTable = HashTable::Ring(1_024);
    const MAGLEV: HashTable = HashTable::Maglev(65_537);

    fn names(base: u32, count: u32) -> Vec<(String, u32)> {
        let name = |number: u32| {
            let address = std::net::Ipv4Addr::from(base.wrapping_add(number));
            (format!("{address}:8080"), 1)
        };
        (0..count).map(name).collect()
    }

    fn first<'a>(table: &Table, endpoints: &'a [(String, u32)], key: u64) -> &'a str {
        &endpoints[table.order(key).next().unwrap()].0
    }

    const KEYS: u32 = 100_000;

    /// The keys that belong to another endpoint when `left` has gone, as a share of all, and whether one
    /// of them was another's before.
    fn moved(kind: HashTable, all: &[(String, u32)], left: usize) -> (f64, bool) {
        let mut others = all.to_vec();
        others.remove(left);
        let (before, after) = (Table::new(kind, all), Table::new(kind, &others));
        let (mut moved, mut of_others) = (0, false);
        for key in 0..KEYS {
            let key = xxh64(&key.to_le_bytes(), 7);
            let owner = first(&before, all, key);
            if owner != first(&after, &others, key) {
                moved += 1;
                of_others |= owner != all[left].0;
            }
        }
        (f64::from(moved) / f64::from(KEYS), of_others)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn one_of_n_that_leaves_moves_little_more_than_its_share_and_nothing_else(
            kind in prop_oneof![Just(RING), Just(MAGLEV)],
            base in any::<u32>(),
            count in 2..=64_u32,
            left in any::<prop::sample::Index>(),
        ) {
            let all = names(base, count);
            let (share, of_others) = moved(kind, &all, left.index(all.len()));
            prop_assert!(share <= 1.2 / f64::from(count), "{share} of {count}");
            prop_assert!(!of_others);
        }

        #[test]
        fn whatever_the_weights_a_maglev_table_moves_the_keys_of_the_one_that_leaves_alone(
            size in prop_oneof![Just(251), Just(1_009), Just(65_537)],
            weights in prop::collection::vec(0..5_u32, 2..12),
            left in any::<prop::sample::Index>(),
        ) {
            let mut all = names(9, weights.len() as u32);
            all.iter_mut().zip(&weights).for_each(|(one, weight)| one.1 = *weight);
            let left = left.index(all.len());
            let others: u32 = weights.iter().sum::<u32>() - weights[left];
            prop_assume!(others > 0 && weights[left] > 0);
            prop_assert!(!moved(HashTable::Maglev(size), &all, left).1);
        }

        #[test]
        fn order_says_nothing_and_every_endpoint_is_found(
            kind in prop_oneof![Just(RING), Just(HashTable::Maglev(251))],
            weights in prop::collection::vec(0..4_u32, 1..12),
            key in any::<u64>(),
        ) {
            let mut all = names(1, weights.len() as u32);
            all.iter_mut().zip(&weights).for_each(|(one, weight)| one.1 = *weight);
            let table = Table::new(kind, &all);
            let found: Vec<&str> = table.order(key).map(|at| &*all[at].0).collect();
            let weighty = all.iter().filter(|(_, weight)| *weight > 0).count();
            prop_assert_eq!(found.len(), weighty);
            let mut turned = all.clone();
            turned.reverse();
            let other = Table::new(kind, &turned);
            let same: Vec<&str> = other.order(key).map(|at| &*turned[at].0).collect();
            prop_assert_eq!(found, same);
        }
    }

    /// A larger table is more even.
    #[test]
    fn of_a_large_table_everybody_has_nearly_the_same() {
        for (size, count, slack) in [(65_537, 10, 0.05), (65_537, 64, 0.12), (5_000_011, 64, 0.02)]
        {
            let all = names(0x0a00_0000, count);
            let Table::Maglev(places) = Table::new(HashTable::Maglev(size), &all) else {
                unreachable!("another kind")
            };
            let mut owned = vec![0_u32; all.len()];
            places.iter().for_each(|at| owned[*at as usize] += 1);
            let fair = f64::from(size) / f64::from(count);
            let off = owned.iter().map(|own| (f64::from(*own) / fair - 1.0).abs());
            let most = off.fold(0.0, f64::max);
            assert!(most <= slack, "{most} of {count} in {size}");
        }
    }

    #[test]
    fn claims_are_to_each_place_once_and_known_by_number() {
        for (size, name) in [(2, "a"), (3, "b"), (251, "c"), (65_537, "d")] {
            let claims = Claims::new((0, name), None, size);
            let mut place = claims.start;
            for number in 0..size {
                assert_eq!(claims.number(place), number, "{size}");
                place = (place + claims.skip) % size;
            }
        }
    }

    #[test]
    fn shares_follow_weights() {
        for (kind, slack) in [(RING, 0.15), (MAGLEV, 0.02)] {
            let mut all = names(0x0a00_0000, 3);
            all[0].1 = 2;
            let table = Table::new(kind, &all);
            let mut counts = [0_u32; 3];
            for key in 0..40_000_u32 {
                counts[table.order(xxh64(&key.to_le_bytes(), 3)).next().unwrap()] += 1;
            }
            for (count, expected) in counts.iter().zip([20_000.0, 10_000.0, 10_000.0]) {
                let off = (f64::from(*count) / expected - 1.0).abs();
                // The draw itself is off by a percent or two.
                assert!(off <= slack + 0.03, "{kind:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn no_endpoints_are_no_trouble() {
        for kind in [RING, MAGLEV] {
            assert_eq!(Table::new(kind, &[]).order(7).count(), 0);
            assert_eq!(Table::new(kind, &[("a".into(), 0)]).order(7).count(), 0);
        }
    }
}
