//! A value that all tasks at work on one thing, such as a partition, share: made for the first of them, dropped with the last.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Cheap to clone; clones share everything.
pub(crate) struct InUse<K: Eq + Hash, V>(Arc<Mutex<Table<K, V>>>);

/// The number of uses, and the value.
type Table<K, V> = HashMap<K, (usize, Arc<V>)>;

/// One use of the value of a key; ends on drop.
pub(crate) struct Use<K: Eq + Hash, V> {
    table: InUse<K, V>,
    key: K,
    value: Arc<V>,
}

impl<K: Clone + Eq + Hash, V: Default> InUse<K, V> {
    pub(crate) fn enter(&self, key: &K) -> Use<K, V> {
        let mut table = self.0.lock();
        let (uses, value) = table.entry(key.clone()).or_default();
        *uses += 1;
        Use {
            table: self.clone(),
            key: key.clone(),
            value: value.clone(),
        }
    }

    /// Gives later calls of `enter` a new value. Does nothing if `used` was replaced before.
    pub(crate) fn replace(&self, used: &Use<K, V>) {
        let mut table = self.0.lock();
        if let Some((_, value)) = table.get_mut(&used.key)
            && Arc::ptr_eq(value, &used.value)
        {
            *value = Arc::default();
        }
    }
}

impl<K: Eq + Hash, V> InUse<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        let table = self.0.lock();
        table.get(key).map(|(_, value)| value.clone())
    }
}

impl<K: Eq + Hash, V> Use<K, V> {
    /// Whether a task that enters now would share this value.
    pub(crate) fn is_current(&self) -> bool {
        let current = self.table.get(&self.key);
        current.is_some_and(|current| Arc::ptr_eq(&current, &self.value))
    }

    pub(crate) fn value(&self) -> &Arc<V> {
        &self.value
    }
}

impl<K: Eq + Hash, V> Drop for Use<K, V> {
    fn drop(&mut self) {
        let mut table = self.table.0.lock();
        if let Some((uses, _)) = table.get_mut(&self.key) {
            *uses -= 1;
            if *uses == 0 {
                table.remove(&self.key);
            }
        }
    }
}

impl<K: Eq + Hash, V> Clone for InUse<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Eq + Hash, V> Default for InUse<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PartitionKey;

    #[test]
    fn what_is_replaced_stays_with_those_who_use_it() {
        let table = InUse::<PartitionKey, Mutex<u32>>::default();
        let key = PartitionKey::user("one").expect("a key");
        let first = table.enter(&key);
        *first.value().lock() = 1;
        assert!(first.is_current());
        table.replace(&first);
        let second = table.enter(&key);
        assert_eq!((first.is_current(), second.is_current()), (false, true));
        table.replace(&first);
        assert!(second.is_current(), "that was replaced before");
        assert_eq!((*first.value().lock(), *second.value().lock()), (1, 0));
        drop((first, second));
        assert!(table.0.lock().is_empty());
    }

    #[test]
    fn an_entry_is_gone_with_its_last_use() {
        let table = InUse::<PartitionKey, Mutex<u32>>::default();
        let [one, other] = ["one", "other"].map(|id| PartitionKey::user(id).expect("a key"));
        let first = table.enter(&one);
        *first.value().lock() = 1;
        let second = table.enter(&one);
        let elsewhere = table.enter(&other);
        drop(first);
        assert_eq!(*second.value().lock(), 1);
        assert_eq!(*elsewhere.value().lock(), 0);
        drop(second);
        assert!(table.get(&one).is_none());
        assert_eq!(*table.enter(&one).value().lock(), 0);
        drop(elsewhere);
        assert!(table.0.lock().is_empty());
    }
}
