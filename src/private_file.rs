//! Files and folders that hold secrets: for this process's user alone.
//!
//! A file is taken only if it is a file (no symbolic link), belongs to the user that this process
//! runs as, and gives nobody else any right. The folder around it must be one in which others cannot
//! replace it: theirs neither to own nor to write, unless it is sticky as `/tmp` is. On systems
//! other than Unix access control lists are the administrator's to set, and nothing is checked.

use std::error::Error as StdError;
use std::fs::{self, Metadata, OpenOptions};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a file or folder is not private, and what to do about it.
#[derive(Debug)]
pub(crate) struct Exposed {
    path: PathBuf,
    flaw: Flaw,
}

#[derive(Debug)]
enum Flaw {
    /// It is a symbolic link, a device, or a file where a folder should be.
    OtherKind { wanted: &'static str },
    /// Another user owns it.
    #[cfg_attr(not(unix), expect(dead_code))]
    Owner { uid: u32, ours: u32 },
    /// Others have rights to it.
    #[cfg_attr(not(unix), expect(dead_code))]
    Mode { mode: u32, wanted: u32 },
    /// Others can replace what is in this folder.
    #[cfg_attr(not(unix), expect(dead_code))]
    Around,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.flaw {
            Flaw::OtherKind { wanted } => {
                write!(
                    f,
                    "{path} is a symbolic link or no {wanted}: name a {wanted}"
                )
            }
            Flaw::Owner { uid, ours } => write!(
                f,
                "the owner of {path} is user {uid}, not this process's user {ours}: use another \
                 name, or run chown {ours} if what is in it can be trusted"
            ),
            Flaw::Mode { mode, wanted } => write!(
                f,
                "{path} is open to other users (mode {mode:o}): run chmod {wanted:o}"
            ),
            Flaw::Around => write!(
                f,
                "other users can replace what is in the folder {path}: use a folder of your own \
                 (mkdir -m 700), or run chmod go-w"
            ),
        }
    }
}

impl StdError for Exposed {}

impl From<Exposed> for io::Error {
    fn from(exposed: Exposed) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, exposed)
    }
}

/// Opens options for a file that has to be new, for its owner alone.
pub(crate) fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates the file if there is none of the name, and checks it and the folder around it.
#[cfg(feature = "sqlite")]
pub(crate) fn create(path: &Path) -> io::Result<()> {
    check_around(path)?;
    match new_file().open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    check(path)
}

/// Checks a file that may not be there.
#[cfg(feature = "sqlite")]
pub(crate) fn check_if_any(path: &Path) -> io::Result<()> {
    match check(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(feature = "sqlite")]
fn check(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    Ok(is_private(path, &found, found.is_file(), "file", 0o600)?)
}

/// Checks a folder, and the one around it.
#[cfg(feature = "seal")]
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    check_around(path)?;
    let found = fs::symlink_metadata(path)?;
    Ok(is_private(path, &found, found.is_dir(), "folder", 0o700)?)
}

/// Opens a file for reading, and checks what was opened.
#[cfg(feature = "seal")]
pub(crate) fn open(path: &Path) -> io::Result<(fs::File, Metadata)> {
    let named = fs::symlink_metadata(path)?;
    is_private(path, &named, named.is_file(), "file", 0o600)?;
    let file = fs::File::open(path)?;
    let opened = file.metadata()?;
    is_private(path, &opened, opened.is_file(), "file", 0o600)?;
    Ok((file, opened))
}

#[cfg(unix)]
fn is_private(
    path: &Path,
    found: &Metadata,
    is_wanted: bool,
    wanted: &'static str,
    wanted_mode: u32,
) -> Result<(), Exposed> {
    use std::os::unix::fs::MetadataExt;

    let ours = rustix::process::geteuid().as_raw();
    let flaw = match (found.uid(), found.mode() & 0o7777) {
        _ if !is_wanted => Flaw::OtherKind { wanted },
        (uid, _) if uid != ours => Flaw::Owner { uid, ours },
        (_, mode) if mode & 0o077 != 0 => Flaw::Mode {
            mode,
            wanted: wanted_mode,
        },
        _ => return Ok(()),
    };
    Err(Exposed {
        path: path.into(),
        flaw,
    })
}

#[cfg(not(unix))]
fn is_private(
    path: &Path,
    _: &Metadata,
    is_wanted: bool,
    wanted: &'static str,
    _: u32,
) -> Result<(), Exposed> {
    match is_wanted {
        true => Ok(()),
        false => Err(Exposed {
            path: path.into(),
            flaw: Flaw::OtherKind { wanted },
        }),
    }
}

/// Whether others can put something else in the place of this.
#[cfg(unix)]
fn check_around(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    const ROOT: u32 = 0;
    const STICKY: u32 = 0o1000;
    // Of a symbolic link the folder that it leads to: the file is in there.
    let folder = fs::canonicalize(path.parent().unwrap_or(path))?;
    let found = fs::metadata(&folder)?;
    let trusted = [ROOT, rustix::process::geteuid().as_raw()].contains(&found.uid());
    let writable = found.mode() & 0o022 != 0 && found.mode() & STICKY == 0;
    match trusted && !writable {
        true => Ok(()),
        false => Err(Exposed {
            path: folder,
            flaw: Flaw::Around,
        }
        .into()),
    }
}

#[cfg(not(unix))]
fn check_around(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Tells one file from another that has taken its name.
#[cfg(feature = "sqlite")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] ());

/// The file that has this name now.
#[cfg(feature = "sqlite")]
pub(crate) fn identity(path: &Path) -> io::Result<Identity> {
    let found = fs::symlink_metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(Identity((found.dev(), found.ino())))
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        Ok(Identity(()))
    }
}
