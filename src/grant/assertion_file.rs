//! `AssertionFile`: an assertion that the platform keeps in a file.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{error, fmt};

use super::ClientAssertion;
use crate::acquire::BoxError;
use crate::secret::Secret;
use crate::wipe::Wiped;

/// The largest file that is read, in bytes: twenty times what platforms write.
const MAX_FILE: usize = 64 << 10;

/// Proves who the client is with an assertion that the platform writes into a file: workload identity federation, as on
/// Kubernetes, where the kubelet replaces a service account's token before it expires.
///
/// The file is read for each request to the provider, so that a replaced one counts at once. (These requests are few:
/// one for each token that is acquired.) It is read on a thread for blocking calls. Replace it by renaming a new file onto
/// it, as the kubelet does, so that no half of one is read.
///
/// The path may lead over symbolic links. White space around the assertion is left out.
///
/// ```
/// use tower_token_cache::grant::{AssertionFile, Client};
///
/// # let variable = |_: &str| Ok::<_, std::env::VarError>("/var/run/secrets/azure/tokens/azure-identity-token".to_owned());
/// let file = AssertionFile::new(variable("AZURE_FEDERATED_TOKEN_FILE")?);
/// let client = Client::new("https://login.microsoftonline.com/tenant/oauth2/v2.0/token", "app")?.assertion(file);
/// # let _ = client;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An [`AssertionFileError`] is a source of the acquisition's error.
#[derive(Clone, Debug)]
pub struct AssertionFile(Arc<Path>);

impl AssertionFile {
    /// The assertion in the file of this path. It need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into().into())
    }
}

impl ClientAssertion for AssertionFile {
    async fn assertion(&self, _: &str, _: &str) -> Result<Secret, BoxError> {
        let path = self.0.clone();
        let read = tokio::task::spawn_blocking(move || {
            read(&path).map_err(|(kind, source)| AssertionFileError { path, kind, source })
        });
        Ok(read.await??)
    }
}

/// Why the file of an [`AssertionFile`] holds no assertion. It shows nothing of what is in the file.
#[derive(Debug)]
pub struct AssertionFileError {
    path: Arc<Path>,
    kind: AssertionFileErrorKind,
    source: Option<io::Error>,
}

/// What is wrong with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssertionFileErrorKind {
    /// It is missing, or this process may not read it: the [source](error::Error::source) says which.
    Unreadable,
    /// It is a folder, a device or a pipe.
    NotAFile,
    /// Each user of this machine can write to it, and so let this client be any other. Not checked outside of Unix.
    WorldWritable,
    /// It has nothing in it, or white space only.
    Empty,
    /// It has more than 64 KiB.
    TooLarge,
    /// It has bytes that no token has: white space in between, control characters, letters with accents.
    NotAToken,
}

impl AssertionFileError {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn kind(&self) -> AssertionFileErrorKind {
        self.kind
    }
}

impl fmt::Display for AssertionFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let flaw = match self.kind {
            AssertionFileErrorKind::Unreadable => "cannot be read",
            AssertionFileErrorKind::NotAFile => "is not a file",
            AssertionFileErrorKind::WorldWritable => "is writable for every user: run chmod o-w",
            AssertionFileErrorKind::Empty => "is empty",
            AssertionFileErrorKind::TooLarge => "is larger than 64 KiB",
            AssertionFileErrorKind::NotAToken => "holds something else than a token",
        };
        write!(f, "the file {path} with the client's assertion {flaw}")
    }
}

impl error::Error for AssertionFileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

type Flaw = (AssertionFileErrorKind, Option<io::Error>);

fn read(path: &Path) -> Result<Secret, Flaw> {
    let unreadable = |error| (AssertionFileErrorKind::Unreadable, Some(error));
    let flaw = |kind| Err((kind, None));
    // Before it is opened, for that would wait at a pipe.
    check(&fs::metadata(path).map_err(unreadable)?)?;
    let file = File::open(path).map_err(unreadable)?;
    check(&file.metadata().map_err(unreadable)?)?;
    let mut bytes = Wiped::new(Vec::with_capacity(MAX_FILE + 1));
    let mut first = file.take(MAX_FILE as u64 + 1);
    first.read_to_end(&mut bytes).map_err(unreadable)?;
    let token = bytes.trim_ascii();
    if bytes.len() > MAX_FILE {
        return flaw(AssertionFileErrorKind::TooLarge);
    }
    if token.is_empty() {
        return flaw(AssertionFileErrorKind::Empty);
    }
    match std::str::from_utf8(token) {
        Ok(token) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.into()),
        _ => flaw(AssertionFileErrorKind::NotAToken),
    }
}

fn check(found: &Metadata) -> Result<(), Flaw> {
    if !found.is_file() {
        return Err((AssertionFileErrorKind::NotAFile, None));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        const WRITABLE_FOR_OTHERS: u32 = 0o002;
        if found.mode() & WRITABLE_FOR_OTHERS != 0 {
            return Err((AssertionFileErrorKind::WorldWritable, None));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(path: &Path) -> Result<Secret, AssertionFileError> {
        let read = AssertionFile::new(path).assertion("", "").await;
        read.map_err(|error| *error.downcast().expect("an AssertionFileError"))
    }

    #[tokio::test]
    async fn what_is_in_the_file_now_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let error = read(&path).await.unwrap_err();
        assert_eq!(error.kind(), AssertionFileErrorKind::Unreadable);
        assert_eq!(error.path(), path);
        for token in ["a.b.c", "d.e.f"] {
            let new = folder.path().join("new");
            fs::write(&new, format!(" {token}\n")).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(read(&path).await.unwrap().expose(), token);
        }
        // As Kubernetes mounts it.
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            assert_eq!(read(&link).await.unwrap().expose(), "d.e.f");
        }
    }

    #[tokio::test]
    async fn a_file_without_a_token_is_an_error_that_shows_nothing_of_it() {
        use AssertionFileErrorKind::*;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let longest = "c".repeat(MAX_FILE);
        for (content, expected) in [
            (&b""[..], Some(Empty)),
            (b" \n\t", Some(Empty)),
            (longest.as_bytes(), None),
            (&[b'c'; MAX_FILE + 1], Some(TooLarge)),
            (&[b' '; MAX_FILE + 1], Some(TooLarge)),
            (b"canary canary", Some(NotAToken)),
            (b"canary\ncanary", Some(NotAToken)),
            (b"canary\0", Some(NotAToken)),
            ("can\u{e4}ry".as_bytes(), Some(NotAToken)),
            (b"canary\xff", Some(NotAToken)),
        ] {
            fs::write(&path, content).unwrap();
            match (read(&path).await, expected) {
                (Ok(token), None) => assert_eq!(token.expose().as_bytes(), content),
                (Err(error), Some(kind)) => {
                    assert_eq!(error.kind(), kind);
                    assert!(!format!("{error}{error:?}").contains("canary"));
                }
                (outcome, _) => panic!("{} bytes: {outcome:?}", content.len()),
            }
        }
        let error = read(folder.path()).await.unwrap_err();
        assert_eq!(error.kind(), NotAFile);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_every_user_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "a.b.c").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o644, true), (0o664, true), (0o666, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let kind = read(&path).await.map_err(|error| error.kind());
            let expected = Err(AssertionFileErrorKind::WorldWritable);
            assert_eq!(kind.is_ok(), is_taken, "{mode:o}");
            assert!(is_taken || kind.map(drop) == expected.map(drop::<Secret>));
        }
    }
}
