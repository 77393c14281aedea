//! What partitions and leases are called in the store.

use crate::store::{Lease, PartitionId};

pub(super) fn of_partition(id: &PartitionId) -> String {
    format!("{}:{}", id.namespace(), id.encoded())
}

pub(super) fn of_lease(lease: &Lease) -> String {
    format!(
        "{}:{}",
        of_partition(&lease.partition),
        lease.entry.encoded()
    )
}
