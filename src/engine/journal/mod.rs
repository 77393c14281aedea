//! The journal: sign-outs that L2 has not acknowledged, in a file, so that the next process tells it.
//!
//! Requests never touch the disk: one thread of the runtime's pool at a time writes what waits, and
//! makes it durable at once for all.

pub(crate) mod file;
pub(crate) mod kept;
pub(crate) mod record;
pub(crate) mod unacknowledged;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::engine::journal::kept::{Forget, Kept};
pub(crate) use crate::engine::journal::record::Record;
use crate::engine::journal::record::{Line, MAGIC};
use crate::engine::journal::unacknowledged::{SignOuts, Untold};
use crate::error::ConfigError;
use crate::store::CommitId;

/// Sign-outs that a journal holds at most: some 8 MB.
pub(crate) const MAX_RECORDS: usize = if cfg!(test) { 5_000 } else { 100_000 };
/// The size of one.
const RECORD: u64 = 74;
/// A file that is larger was not written by this.
const MAX_FILE: u64 = 64 << 20;
/// From this size on the file is written anew when most of it is of no use any more.
const WORTH_REWRITING: u64 = 1 << 20;

/// Clones are the same.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

pub(crate) struct Inner {
    waiting: Mutex<Vec<Job>>,
    /// A task is writing, and will write what waits, too.
    writing: AtomicBool,
    disk: Mutex<Disk>,
    /// What an earlier process has left, by the partition's digest without the prefix generation.
    owed: Mutex<HashMap<[u8; 32], Owed>>,
    owes: AtomicUsize,
    runtime: tokio::runtime::Handle,
}

enum Job {
    Add(Vec<Record>, oneshot::Sender<io::Result<Kept>>),
    Forget(Vec<u64>),
}

/// A sign-out of an earlier process.
pub(crate) struct Owed {
    pub(crate) record: Record,
    pub(crate) untold: Untold,
}

struct Disk {
    path: PathBuf,
    namespace: String,
    file: File,
    size: u64,
    live: BTreeMap<u64, Record>,
    next: u64,
    /// Held as long as this process may write.
    _lock: File,
}

impl Forget for Inner {
    fn forget(self: Arc<Self>, numbers: Vec<u64>) {
        Journal(self).push(Job::Forget(numbers));
    }
}

impl Journal {
    /// Opens the journal of this path, or creates it.
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
            let mut untold = sign_outs.begin();
            untold.keep(Kept {
                journal: journal.forgets(),
                numbers: vec![number],
            });
            let later = Owed { record, untold };
            // Of several of one partition the latest has it all.
            let earlier: Option<Owed> = owed.insert(later.record.digest, later);
            if let Some(earlier) = earlier {
                earlier.untold.told();
            }
        }
        journal.0.owes.store(owed.len(), Ordering::Release);
        *journal.0.owed.lock() = owed;
        Ok(journal)
    }

    fn forgets(&self) -> Weak<dyn Forget> {
        let Self(inner) = self;
        let forgets: Arc<dyn Forget> = inner.clone();
        Arc::downgrade(&forgets)
    }

    /// Writes these down. On return they are durable.
    pub(crate) async fn add(&self, records: Vec<Record>) -> io::Result<Kept> {
        let (told, written) = oneshot::channel();
        self.push(Job::Add(records, told));
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
                    // Under the lock: whoever comes now starts another task.
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
                Job::Add(records, told) => match disk.number(records, &mut text) {
                    Some(numbers) => added.push((numbers, told)),
                    None => {
                        let full = io::Error::new(io::ErrorKind::StorageFull, "it is full");
                        let _ = told.send(Err(full));
                    }
                },
                Job::Forget(numbers) => forgotten.extend(numbers),
            }
        }
        for number in &forgotten {
            if disk.live.remove(number).is_some() {
                Line::Told(*number).write(&mut text);
            }
        }
        let written = disk.append(&text);
        if let Err(error) = &written {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the journal of sign-outs cannot be written"
            );
        }
        for (numbers, told) in added {
            let answer = match &written {
                Ok(()) => Ok(Kept {
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
            // Who has gone needs no answer; the record stays.
            let _ = told.send(answer);
        }
    }

    /// Whether an earlier process has left anything that L2 has not been told of.
    #[inline]
    pub(crate) fn owes(&self) -> bool {
        self.0.owes.load(Ordering::Acquire) > 0
    }

    /// Some of what an earlier process has left.
    pub(crate) fn some_owed(&self, count: usize) -> Vec<Record> {
        let owed = self.0.owed.lock();
        let records = owed.values().map(|owed| owed.record.clone());
        records.take(count).collect()
    }

    /// The sign-outs of users that an earlier process has left. Whoever takes them tells L2.
    pub(crate) fn take_owed_users(&self) -> Vec<Owed> {
        let mut owed = self.0.owed.lock();
        let users = owed.extract_if(|_, owed| owed.record.user);
        let users = users.map(|(_, owed)| owed).collect();
        self.0.owes.store(owed.len(), Ordering::Release);
        users
    }

    /// Whoever takes it tells L2, or has.
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
        prefix: Option<u64>,
        sign_out: CommitId,
        since: crate::time::Timestamp,
    ) -> Self {
        Self {
            user: false,
            digest,
            prefix,
            sign_out,
            since,
        }
    }
}

impl Disk {
    fn open(path: &Path, namespace: &str) -> Result<Self, ConfigError> {
        let failed = |error: io::Error| {
            ConfigError::new("journal", "must be a file of its own, its owner's alone")
                .with_source(error)
        };
        let path = std::path::absolute(path).map_err(failed)?;
        let lock = file::lock(&beside(&path, ".lock")).map_err(failed)?;
        let lock = lock.ok_or(ConfigError::new("journal", "is in use by another process"))?;
        let mut file = file::open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        if size > MAX_FILE {
            return Err(ConfigError::new(
                "journal",
                "must be a journal, not another file",
            ));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        let live = read(&content, namespace)?;
        let mut disk = Self {
            next: live.keys().next_back().map_or(0, |last| last + 1),
            path,
            namespace: namespace.into(),
            file,
            size,
            live,
            _lock: lock,
        };
        // Without what is of no use any more, and a tail that was cut off.
        disk.rewrite().map_err(failed)?;
        Ok(disk)
    }

    /// Gives records their numbers, if there is room for them.
    fn number(&mut self, records: Vec<Record>, text: &mut Vec<u8>) -> Option<Vec<u64>> {
        if self.live.len() + records.len() > MAX_RECORDS {
            return None;
        }
        let mut numbers = Vec::with_capacity(records.len());
        for record in records {
            let number = self.next;
            self.next += 1;
            self.live.insert(number, record.clone());
            Line::Owed(number, record).write(text);
            numbers.push(number);
        }
        Some(numbers)
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let of_use = RECORD * self.live.len() as u64;
        if self.size > WORTH_REWRITING.max(2 * of_use) {
            return self.rewrite();
        }
        let written = self.file.write_all(text);
        let written = written.and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.size += text.len() as u64,
            // What is half there would hide what comes after it.
            Err(_) => self.file.set_len(self.size)?,
        }
        written
    }

    /// Puts a file that has nothing but what is of use in the place of this one.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = MAGIC.to_vec();
        Line::Namespace(self.namespace.clone()).write(&mut text);
        for (number, record) in &self.live {
            Line::Owed(*number, record.clone()).write(&mut text);
        }
        let draft = beside(&self.path, ".new");
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = file::create(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.path)?;
        file::sync_folder(&self.path)?;
        (self.file, self.size) = (file, text.len() as u64);
        Ok(())
    }
}

/// What L2 was not told of.
fn read(content: &[u8], namespace: &str) -> Result<BTreeMap<u64, Record>, ConfigError> {
    let mut live = BTreeMap::new();
    if content.is_empty() {
        return Ok(live);
    }
    let foreign = || ConfigError::new("journal", "must be a journal, not another file");
    let rest = content.strip_prefix(MAGIC).ok_or_else(foreign)?;
    let (first, mut rest) = Line::read(rest).ok_or_else(foreign)?;
    if first != Line::Namespace(namespace.into()) {
        return Err(ConfigError::new(
            "journal",
            "must be a file of its own for each namespace",
        ));
    }
    while let Some((line, next)) = Line::read(rest) {
        match line {
            Line::Owed(number, record) => drop(live.insert(number, record)),
            Line::Told(number) => drop(live.remove(&number)),
            Line::Namespace(_) => {}
        }
        rest = next;
    }
    if !rest.is_empty() {
        tracing::warn!(
            bytes = rest.len(),
            "the end of the journal of sign-outs was cut off, and is left out"
        );
    }
    Ok(live)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// What a process that starts now finds.
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
        all.drain(10..).for_each(Kept::forget);
        // Written in order.
        let last = journal.add(vec![record(100)]).await;
        assert!(last.is_ok());
        assert_eq!(left(&path), 11);
        drop((journal, all, last));
        // What wrote it last lets go of it in a thread of its own.
        let reopened = async {
            loop {
                match open(&path) {
                    Ok(journal) => return journal,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let limit = std::time::Duration::from_secs(10);
        let reopened = tokio::time::timeout(limit, reopened).await;
        let journal = reopened.expect("no longer in use");
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
        drop(journal);
        let whole = std::fs::read(&path).expect("readable");
        for cut in 1..=RECORD as usize {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("written");
            let journal = open(&path).expect("a journal");
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
