//! The system allocator, counting what the current thread asks of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts allocations per thread, so that background work is not charged to the request.
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

/// What this thread has allocated so far.
pub fn count() -> Count {
    COUNT.with(Cell::get)
}

fn add(bytes: usize) {
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
