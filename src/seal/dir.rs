//! A folder of keys: the repository of a single machine, or of a shared mount.

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::record::MAX_CONTENT;
use super::repository::{KeyRecord, KeyRepository};
use crate::private_file;

const EXTENSION: &str = "key";
/// More files than any ring has.
pub(crate) const MAX_RECORDS: usize = 1000;

/// Keys as files of mode 0600, one each, in a folder of mode 0700. It needs a file system with hard
/// links, because those are made only where there is no file of the name.
///
/// On systems other than Unix the folder's access control list is the administrator's to set.
#[derive(Clone, Debug)]
pub struct DirRepository {
    path: Arc<Path>,
}

impl DirRepository {
    /// The folder of this path, which is created if it is missing.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Permissions`] when the folder belongs to another user than this process's,
    /// is open to others, is none or a symbolic link, or when others can replace what is in the
    /// folder around it; the source says what to do. [`KeyRingErrorKind::Unreachable`] when it
    /// cannot be created.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KeyRingError> {
        let path = std::path::absolute(path).map_err(unreachable)?;
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(unreachable)?;
        let dir = Self { path: path.into() };
        dir.check()?;
        Ok(dir)
    }

    fn check(&self) -> Result<(), KeyRingError> {
        private_file::check_folder(&self.path).map_err(unreachable)
    }

    pub(super) fn list_now(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        self.check()?;
        let mut records = Vec::new();
        for file in fs::read_dir(&self.path).map_err(unreachable)? {
            let path = file.map_err(unreachable)?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let is_key = path.extension().is_some_and(|ext| ext == EXTENSION);
            let Some(name) = name.filter(|name| is_key && !name.starts_with('.')) else {
                continue;
            };
            if records.len() == MAX_RECORDS {
                return Err(KeyRingErrorKind::TooLarge.into());
            }
            records.push(KeyRecord {
                name: name.into(),
                content: read(&path)?,
            });
        }
        Ok(records)
    }

    /// Written whole under a name of its own, made durable, and then linked to its place. A rename
    /// would replace a file that another process has put there meanwhile; a link does not.
    pub(super) fn add_now(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        let random =
            getrandom::u64().map_err(|error| KeyRingErrorKind::Randomness.because(error))?;
        let draft = Draft(self.path.join(format!(".{random:016x}.tmp")));
        let mut file = private_file::new_file()
            .open(&draft.0)
            .map_err(unreachable)?;
        file.write_all(&record.content).map_err(unreachable)?;
        file.sync_all().map_err(unreachable)?;
        let place = self.path.join(format!("{}.{EXTENSION}", record.name));
        let added = match fs::hard_link(&draft.0, place) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(unreachable(error)),
        };
        drop(draft);
        // The name is durable too before anybody seals with the key.
        #[cfg(unix)]
        fs::File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(unreachable)?;
        Ok(added)
    }
}

/// A file that is removed again.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // One that stays behind is for its owner alone, and is not read.
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that is larger than any record is read up to where that is seen.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyRingError> {
    let (mut file, found) = private_file::open(path).map_err(unreachable)?;
    let size = found.len().min(MAX_CONTENT as u64 + 1) as usize;
    let mut content = Zeroizing::new(vec![0; size]);
    file.read_exact(&mut content).map_err(unreachable)?;
    Ok(content)
}

fn unreachable(error: io::Error) -> KeyRingError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => KeyRingErrorKind::Permissions.because(error),
        _ => KeyRingErrorKind::Unreachable.because(error),
    }
}

/// Disks block: where there is a runtime, its threads for that are used.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyRingError> + Send + 'static,
) -> Result<T, KeyRingError> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(KeyRingErrorKind::Unreachable.because(error)),
        },
        Err(_) => work(),
    }
}

impl KeyRepository for DirRepository {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        let dir = self.clone();
        blocking(move || dir.list_now()).await
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        let (dir, record) = (self.clone(), record.clone());
        blocking(move || dir.add_now(&record)).await
    }
}

/// The same folder for code that cannot wait: its futures are ready at once.
#[derive(Debug)]
pub(super) struct Blocking(pub(super) DirRepository);

impl KeyRepository for Blocking {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        self.0.list_now()
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        self.0.add_now(record)
    }
}
