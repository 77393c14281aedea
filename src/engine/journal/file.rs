//! Files that only their owner may use.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Opens a file for reading and appending, or creates it, with rights for its owner only.
///
/// # Errors
/// Of kind `PermissionDenied` if other users own it or have rights to it, or if it is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = private().read(true).append(true).create(true).open(path)?;
    check(&file)?;
    Ok(file)
}

/// Creates a file; fails if there is one.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = private().append(true).create_new(true).open(path)?;
    check(&file)?;
    Ok(file)
}

/// Locks this file for the process until it is closed. `None` if another process has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<File>> {
    #[cfg(unix)]
    {
        use rustix::fs::{FlockOperation, flock};
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
    #[cfg(not(unix))]
    {
        const SHARING_VIOLATION: i32 = 32;
        let mut options = private();
        // No other process can open it meanwhile.
        #[cfg(windows)]
        std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 0);
        match options.append(true).create(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.raw_os_error() == Some(SHARING_VIOLATION) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Makes the names in this file's folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
        // A symbolic link is not followed: another user may have put it there.
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

fn check(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    let refuse = |reason| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if !found.is_file() {
        return refuse("it is no file");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if found.uid() != rustix::process::geteuid().as_raw() {
            return refuse("it belongs to somebody else");
        }
        if found.mode() & 0o077 != 0 {
            return refuse("others have rights to it");
        }
    }
    Ok(())
}
