//! A small file system of the test's own, which can be filled.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const MISSING: &str = "This test mounts a small file system: run it as root where that may be mounted (in a container, \
                       with `--cap-add SYS_ADMIN`), or where `sudo` asks for no password";

/// Of this process's user. Unmounted on drop.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// One of so many MiB.
    pub fn of(size: u32) -> Self {
        let disk = Self(tempfile::tempdir().expect("a temporary folder"));
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let options = format!(
            "size={size}m,mode=0755,uid={},gid={}",
            user.as_raw(),
            group.as_raw()
        );
        let mut mount = as_root("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]);
        assert!(succeeds(mount.arg(disk.path())), "{MISSING}");
        disk
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("it is ours");
        // What is left of the large pieces is filled with small ones.
        for size in [1 << 20, 1 << 12] {
            let piece = vec![7; size];
            let full = loop {
                if let Err(full) = ballast.write_all(&piece) {
                    break full;
                }
            };
            assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it back.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that is about to end may have files there.
        succeeds(as_root("umount").arg("--lazy").arg(self.path()));
    }
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
