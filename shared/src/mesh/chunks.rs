//! A sorted list that shares its parts with older versions of itself.
//!
//! Invariants: rows are in ascending order and no two are equal; a chunk holds 1 to [`MAX_ROWS`]
//! rows. Changing one row copies one chunk and the list of chunks, nothing else, so that a snapshot
//! of 100,000 rows costs some 800 pointers.
//! Order is given by the caller: `order(row)` says how `row` stands to what is looked for.

use std::cmp::Ordering;
use std::sync::Arc;

/// Rows per chunk: at 100,000 rows, copying one chunk and copying the list of a thousand chunks
/// then cost alike, some microseconds each.
const MAX_ROWS: usize = 128;

/// A persistent sorted list.
#[derive(Debug, Clone)]
pub(super) struct Chunks<R> {
    chunks: Arc<Vec<Arc<Vec<R>>>>,
    len: usize,
}

impl<R> Default for Chunks<R> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<R: Clone> Chunks<R> {
    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All rows, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &R> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The row that `order` calls equal.
    pub(super) fn find(&self, order: impl Fn(&R) -> Ordering) -> Option<&R> {
        let chunk = self.chunks.get(self.chunk_of(&order))?;
        chunk.binary_search_by(&order).ok().map(|at| &chunk[at])
    }

    /// The adjacent rows that `order` calls equal.
    pub(super) fn range<O: Fn(&R) -> Ordering>(&self, order: O) -> impl Iterator<Item = &R> {
        let first = self.chunk_of(&order);
        let skipped = self
            .chunks
            .get(first)
            .map_or(0, |chunk| chunk.partition_point(|row| order(row) == Ordering::Less));
        let rows = self.chunks[first..].iter().flat_map(|chunk| chunk.iter());
        rows.skip(skipped).take_while(move |row| order(row) == Ordering::Equal)
    }

    /// Puts `row` where `order` wants it; gives back the row that was equal.
    pub(super) fn insert(&mut self, row: R, order: impl Fn(&R) -> Ordering) -> Option<R> {
        let at = self.chunk_of(&order).min(self.chunks.len().saturating_sub(1));
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![row]));
            self.len += 1;
            return None;
        };
        let rows = Arc::make_mut(chunk);
        match rows.binary_search_by(order) {
            Ok(found) => return Some(std::mem::replace(&mut rows[found], row)),
            Err(free) => rows.insert(free, row),
        }
        self.len += 1;
        if rows.len() > MAX_ROWS {
            let tail = rows.split_off(MAX_ROWS / 2);
            rows.shrink_to_fit();
            chunks.insert(at + 1, Arc::new(tail));
        }
        None
    }

    /// Takes the row out that `order` calls equal.
    pub(super) fn remove(&mut self, order: impl Fn(&R) -> Ordering) -> Option<R> {
        let at = self.chunk_of(&order);
        let found = self.chunks.get(at)?.binary_search_by(&order).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let rows = Arc::make_mut(&mut chunks[at]);
        let row = rows.remove(found);
        self.len -= 1;
        if rows.is_empty() {
            chunks.remove(at);
        } else if rows.len() < MAX_ROWS / 4 && at > 0 {
            Self::join(chunks, at);
        }
        Some(row)
    }

    /// Appends chunk `at` to the one before it when both fit in three quarters of a chunk.
    fn join(chunks: &mut Vec<Arc<Vec<R>>>, at: usize) {
        if chunks[at - 1].len() + chunks[at].len() <= MAX_ROWS * 3 / 4 {
            let tail = chunks.remove(at);
            Arc::make_mut(&mut chunks[at - 1]).extend(tail.iter().cloned());
        }
    }

    /// The first chunk whose last row is not before what is looked for.
    fn chunk_of(&self, order: &impl Fn(&R) -> Ordering) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.last().is_some_and(|row| order(row) == Ordering::Less))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_set(steps in prop::collection::vec((any::<bool>(), 0u16..600), 0..2000)) {
            let mut chunks = Chunks::default();
            let mut model = BTreeSet::new();
            let mut old = Vec::new();
            for (add, value) in steps {
                if add {
                    prop_assert_eq!(chunks.insert(value, |row: &u16| row.cmp(&value)).is_none(), model.insert(value));
                } else {
                    prop_assert_eq!(chunks.remove(|row| row.cmp(&value)).is_some(), model.remove(&value));
                }
                if value % 97 == 0 {
                    old.push((chunks.clone(), model.clone()));
                }
                prop_assert_eq!(chunks.find(|row| row.cmp(&value)).is_some(), model.contains(&value));
            }
            old.push((chunks, model));
            for (chunks, model) in old {
                prop_assert_eq!(chunks.len(), model.len());
                prop_assert!(chunks.iter().eq(model.iter()));
                prop_assert!(chunks.chunks.iter().all(|chunk| (1..=MAX_ROWS).contains(&chunk.len())));
                let tens = |tens: u16| move |row: &u16| (row / 10).cmp(&tens);
                for decade in [0, 7, 30, 59, 60] {
                    let expected = model.iter().filter(|value| **value / 10 == decade);
                    prop_assert!(chunks.range(tens(decade)).eq(expected));
                }
            }
        }
    }
}
