//! The system allocator, counting what a piece of work asks of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// Counts allocations per thread, so that background work is not charged to the request; and only
/// within [`count_per_call`], so that counting is not charged to what is timed.
pub struct Counting;

/// Allocations and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub allocations: u64,
    pub bytes: u64,
}

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { allocations: 0, bytes: 0 }) };
}

static ON: AtomicBool = AtomicBool::new(false);

/// What this thread allocates for each of so many calls.
pub async fn count_per_call(calls: usize, work: impl Future<Output = ()>) -> Count {
    COUNT.set(Count::default());
    ON.store(true, Ordering::Relaxed);
    work.await;
    ON.store(false, Ordering::Relaxed);
    let Count { allocations, bytes } = COUNT.get();
    Count {
        allocations: allocations / calls as u64,
        bytes: bytes / calls as u64,
    }
}

fn add(bytes: usize) {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    // Fails only while the thread ends, when nobody measures.
    let _ = COUNT.try_with(|count| {
        let Count {
            allocations,
            bytes: total,
        } = count.get();
        count.set(Count {
            allocations: allocations + 1,
            bytes: total + bytes as u64,
        });
    });
}

// SAFETY: every call is passed on to `System` as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}
