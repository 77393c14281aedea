//! The journal: sign-outs that L2 has not acknowledged, in a file, so that the next process sends them to L2.
//!
//! Requests never touch the disk. One blocking task at a time writes all waiting jobs, and makes them durable
//! with one sync.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::journal::disk::Disk;
use crate::engine::journal::journaled::{Forget, Journaled};
use crate::engine::journal::record::Line;
pub(crate) use crate::engine::journal::record::Record;
use crate::engine::journal::unacknowledged::{SignOuts, Unacknowledged};
use crate::error::ConfigError;
use crate::store::CommitId;

/// The journal of one process. Clones share it.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

pub(crate) struct Inner {
    waiting: Mutex<Vec<Job>>,
    /// A task is writing; it also takes the jobs that are added meanwhile.
    writing: AtomicBool,
    disk: Mutex<Disk>,
    /// The sign-outs of an earlier process, by the partition's digest without the namespace's number.
    owed: Mutex<HashMap<[u8; 32], Owed>>,
    owes: AtomicUsize,
    runtime: tokio::runtime::Handle,
}

enum Job {
    Add(Vec<Record>, oneshot::Sender<io::Result<Journaled>>),
    Forget(Vec<u64>),
}

/// A sign-out of an earlier process that L2 has not acknowledged.
pub(crate) struct Owed {
    pub(crate) record: Record,
    pub(crate) unacknowledged: Unacknowledged,
}

impl Forget for Inner {
    fn forget(self: Arc<Self>, numbers: Vec<u64>) {
        Journal(self).push(Job::Forget(numbers));
    }
}

impl Journal {
    /// Opens the journal at this path, or creates it.
    pub(crate) fn open(
        path: &Path,
        namespace: &str,
        sign_outs: &SignOuts,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, ConfigError> {
        let disk = Disk::open(path, namespace)?;
        let journal = Self(Arc::new(Inner {
            waiting: Mutex::default(),
            writing: AtomicBool::new(false),
            owed: Mutex::default(),
            owes: AtomicUsize::new(0),
            disk: Mutex::new(disk),
            runtime,
        }));
        let left = journal.0.disk.lock().live.clone();
        let mut owed = HashMap::with_capacity(left.len());
        for (number, record) in left {
            let mut unacknowledged = sign_outs.begin();
            unacknowledged.keep(Journaled {
                journal: journal.forgets(),
                numbers: vec![number],
            });
            let later = Owed {
                record,
                unacknowledged,
            };
            // The latest of several sign-outs of one partition covers the others.
            let earlier: Option<Owed> = owed.insert(later.record.digest, later);
            if let Some(earlier) = earlier {
                earlier.unacknowledged.acknowledged();
            }
        }
        journal.0.owes.store(owed.len(), Ordering::Release);
        *journal.0.owed.lock() = owed;
        Ok(journal)
    }

    fn forgets(&self) -> Weak<dyn Forget> {
        let inner: Weak<Inner> = Arc::downgrade(&self.0);
        inner
    }

    /// Adds records. On return they are durable.
    pub(crate) async fn add(&self, records: Vec<Record>) -> io::Result<Journaled> {
        let (sender, written) = oneshot::channel();
        self.push(Job::Add(records, sender));
        let lost = |_| io::Error::other("the journal's writer has ended");
        written.await.map_err(lost)?
    }

    fn push(&self, job: Job) {
        let Self(inner) = self;
        inner.waiting.lock().push(job);
        if !inner.writing.swap(true, Ordering::AcqRel) {
            let journal = self.clone();
            inner.runtime.spawn_blocking(move || journal.write());
        }
    }

    fn write(&self) {
        let Self(inner) = self;
        loop {
            let jobs = {
                let mut waiting = inner.waiting.lock();
                if waiting.is_empty() {
                    // Under the lock: a job that is added from now on starts another task.
                    inner.writing.store(false, Ordering::Release);
                    return;
                }
                std::mem::take(&mut *waiting)
            };
            self.write_jobs(jobs);
        }
    }

    fn write_jobs(&self, jobs: Vec<Job>) {
        let mut disk = self.0.disk.lock();
        let mut text = Vec::new();
        let mut added = Vec::new();
        let mut forgotten = Vec::new();
        for job in jobs {
            match job {
                Job::Add(records, sender) => match disk.number(records, &mut text) {
                    Some(numbers) => added.push((numbers, sender)),
                    None => {
                        let full = io::Error::new(io::ErrorKind::StorageFull, "it is full");
                        let _ = sender.send(Err(full));
                    }
                },
                Job::Forget(numbers) => forgotten.extend(numbers),
            }
        }
        for number in &forgotten {
            if disk.live.remove(number).is_some() {
                Line::Acknowledged(*number).write(&mut text);
            }
        }
        let written = disk.append(&text);
        if let Err(error) = &written {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the journal of sign-outs cannot be written"
            );
        }
        for (numbers, sender) in added {
            let answer = match &written {
                Ok(()) => Ok(Journaled {
                    journal: self.forgets(),
                    numbers,
                }),
                Err(error) => {
                    numbers.iter().for_each(|number| {
                        disk.live.remove(number);
                    });
                    Err(io::Error::new(error.kind(), error.to_string()))
                }
            };
            // The caller may have stopped waiting. The record stays in the journal.
            let _ = sender.send(answer);
        }
    }

    /// Whether sign-outs of an earlier process are left to be sent.
    #[inline]
    pub(crate) fn owes(&self) -> bool {
        self.0.owes.load(Ordering::Acquire) > 0
    }

    /// Up to `count` sign-outs of an earlier process.
    pub(crate) fn some_owed(&self, count: usize) -> Vec<Record> {
        let owed = self.0.owed.lock();
        let records = owed.values().map(|owed| owed.record.clone());
        records.take(count).collect()
    }

    /// Takes the sign-outs of users of an earlier process. The caller sends them to L2.
    pub(crate) fn take_owed_users(&self) -> Vec<Owed> {
        let mut owed = self.0.owed.lock();
        let users = owed.extract_if(|_, owed| owed.record.user);
        let users = users.map(|(_, owed)| owed).collect();
        self.0.owes.store(owed.len(), Ordering::Release);
        users
    }

    /// Takes the sign-out of this digest. The caller sends it to L2, or has done so.
    pub(crate) fn take_owed(&self, digest: &[u8; 32]) -> Option<Owed> {
        let mut owed = self.0.owed.lock();
        let taken = owed.remove(digest);
        self.0.owes.store(owed.len(), Ordering::Release);
        taken
    }
}

impl Record {
    pub(crate) fn new(
        digest: [u8; 32],
        under: Option<u64>,
        sign_out: CommitId,
        since: crate::time::Timestamp,
    ) -> Self {
        Self {
            user: false,
            digest,
            under,
            sign_out,
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::journal::disk::{MAX_RECORDS, RECORD, WORTH_REWRITING, read};
    use crate::time::Timestamp;

    fn record(number: usize) -> Record {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        Record::new(digest, None, CommitId([7; 8]), Timestamp::from_millis(7))
    }

    fn open(path: &Path) -> Result<Journal, ConfigError> {
        let runtime = tokio::runtime::Handle::current();
        Journal::open(path, "ttc", &SignOuts::default(), runtime)
    }

    /// The journal of the next process: the last writer releases the lock in a thread of its own.
    async fn reopened(path: &Path) -> Journal {
        let opened = async {
            loop {
                match open(path) {
                    Ok(journal) => return journal,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let limit = std::time::Duration::from_secs(10);
        let opened = tokio::time::timeout(limit, opened).await;
        opened.expect("no longer in use")
    }

    /// How many records a process that starts now finds.
    fn left(path: &Path) -> usize {
        let content = std::fs::read(path).expect("readable");
        read(&content, "ttc").expect("a journal").len()
    }

    #[tokio::test]
    async fn what_is_told_is_forgotten_and_the_rest_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = open(&path).expect("created");
        let mut all = Vec::new();
        for number in 0..100 {
            all.push(journal.add(vec![record(number)]).await.expect("kept"));
        }
        assert_eq!(left(&path), 100);
        all.drain(10..).for_each(Journaled::forget);
        // Jobs are written in order, so the removals are written before this one returns.
        let last = journal.add(vec![record(100)]).await;
        assert!(last.is_ok());
        assert_eq!(left(&path), 11);
        drop((journal, all, last));
        let journal = reopened(&path).await;
        assert!(journal.owes());
        assert_eq!(journal.some_owed(1000).len(), 11);
    }

    #[tokio::test]
    async fn what_was_cut_off_is_left_out_and_what_came_before_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = open(&path).expect("created");
        for number in 0..3 {
            let kept = journal.add(vec![record(number)]).await;
            assert!(kept.is_ok());
        }
        let whole = std::fs::read(&path).expect("readable");
        drop(journal);
        for cut in 1..=RECORD as usize {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("written");
            let journal = reopened(&path).await;
            assert_eq!(journal.some_owed(9).len(), 2, "{cut} bytes cut off");
        }
    }

    #[tokio::test]
    async fn it_is_bounded_on_disk_and_in_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = open(&path).expect("created");
        for round in 0..30 {
            let records = (0..1000).map(|number| record(1000 * round + number));
            let kept = journal.add(records.collect()).await.expect("kept");
            kept.forget();
        }
        assert!(journal.add(vec![record(0)]).await.is_ok());
        let size = std::fs::metadata(&path).expect("it is there").len();
        assert!(size < 2 * WORTH_REWRITING, "{size}");
        let many = (0..MAX_RECORDS - 1).map(record).collect();
        assert!(journal.add(many).await.is_ok());
        let one_more = journal.add(vec![record(0)]).await;
        let refused = one_more.err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::StorageFull));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn it_is_a_file_of_its_own_and_its_owners_alone() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = open(&path).expect("created");
        let mode = std::fs::metadata(&path).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = open(&path).err().expect("one at a time");
        assert_eq!(second.option(), "journal");
        drop(journal);
        let other = |name: &str| folder.path().join(name);
        symlink(&path, other("link")).expect("linked");
        assert!(open(&other("link")).is_err(), "a link");
        std::fs::write(other("foreign"), "something else").expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(other("foreign"), private).expect("its owner's");
        assert!(open(&other("foreign")).is_err(), "not a journal");
        assert_eq!(
            std::fs::read(other("foreign")).expect("there"),
            b"something else"
        );
        let shared = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&path, shared).expect("its owner's");
        assert!(open(&path).is_err(), "others can read it");
        assert!(open(&other("missing/journal")).is_err());
        let runtime = tokio::runtime::Handle::current();
        let sign_outs = SignOuts::default();
        drop(open(&other("one")).expect("created"));
        let another = Journal::open(&other("one"), "other", &sign_outs, runtime);
        assert!(another.is_err(), "another namespace's");
    }
}
