//! A store in a folder, for all processes of one machine: a file per partition, and one per lease.
//!
//! The time of a file is when it is of no use any more. Let cron delete what is past its time, once a day:
//!
//! ```sh
//! flock tokens/.lock find tokens -name '*:*' -not -newermt now -delete
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tower_token_cache::{StoreError, StoreErrorKind, store::CasStore};

/// What has no end is kept for a hundred years.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) struct Folder(pub(crate) PathBuf);

impl CasStore for Folder {
    /// The bytes themselves.
    type Revision = Bytes;

    async fn get(&self, key: &str) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        let path = self.0.join(key);
        blocking(move || Ok(read(&path)?.map(|bytes| (bytes.clone(), bytes)))).await
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<&Bytes>,
        keep: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let write = move |path: &Path| {
            let next = path.with_file_name(".next");
            let mut file = File::create(&next)?;
            file.write_all(&value)?;
            file.set_modified(SystemTime::now() + keep.unwrap_or(FOR_EVER).min(FOR_EVER))?;
            file.sync_all()?;
            fs::rename(next, path)
        };
        let (path, expected) = (self.0.join(key), expected.cloned());
        blocking(move || change(&path, expected, write)).await
    }

    async fn delete(&self, key: &str, expected: &Bytes) -> Result<bool, StoreError> {
        let (path, expected) = (self.0.join(key), Some(expected.clone()));
        blocking(move || change(&path, expected, |path| fs::remove_file(path))).await
    }
}

/// Changes a file that has these bytes. The lock ends with the open file, also when the process ends.
fn change<F>(path: &Path, expected: Option<Bytes>, next: F) -> io::Result<bool>
where
    F: FnOnce(&Path) -> io::Result<()>,
{
    let lock = File::create(path.with_file_name(".lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
    let as_read = read(path)? == expected;
    as_read.then(|| next(path)).transpose()?;
    Ok(as_read)
}

fn read(path: &Path) -> io::Result<Option<Bytes>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(|bytes| Some(bytes.into())),
    }
}

/// On a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(error.into()));
    done.map_err(|error| StoreError::with_source(StoreErrorKind::Unreachable, error))
}
