//! The journal's file: reading, appending, rewriting.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::file;
use crate::engine::journal::record::{Line, MAGIC, Record};
use crate::error::ConfigError;

/// Sign-outs that a journal holds at most: about 8 MB.
pub(crate) const MAX_RECORDS: usize = if cfg!(test) { 5_000 } else { 100_000 };

/// The size of a sign-out's record, in bytes.
pub(crate) const RECORD: u64 = 74;

/// A larger file is not a journal.
const MAX_FILE: u64 = 64 << 20;

/// A file of at least this size is rewritten when more than half of it is obsolete.
pub(crate) const WORTH_REWRITING: u64 = 1 << 20;

pub(crate) struct Disk {
    path: PathBuf,
    namespace: String,
    file: File,
    size: u64,
    pub(crate) live: BTreeMap<u64, Record>,
    next: u64,
    /// The lock file, held as long as this process may write.
    _lock: File,
}

impl Disk {
    pub(crate) fn open(path: &Path, namespace: &str) -> Result<Self, ConfigError> {
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
        // Drops obsolete records, and a tail that was cut off.
        disk.rewrite().map_err(failed)?;
        Ok(disk)
    }

    /// Numbers the records, and writes them to `text`; `None` if there is no room for all of them.
    pub(crate) fn number(&mut self, records: Vec<Record>, text: &mut Vec<u8>) -> Option<Vec<u64>> {
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

    pub(crate) fn append(&mut self, text: &[u8]) -> io::Result<()> {
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
            // A record that is half written would hide the records after it.
            Err(_) => self.file.set_len(self.size)?,
        }
        written
    }

    /// Replaces the file by one that has the live records only.
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

/// The sign-outs that L2 has not acknowledged.
pub(crate) fn read(content: &[u8], namespace: &str) -> Result<BTreeMap<u64, Record>, ConfigError> {
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
            Line::Acknowledged(number) => drop(live.remove(&number)),
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
