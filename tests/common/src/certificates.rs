//! Certificates for servers and clients.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// Certificates of an authority of the test's own, by `openssl`.
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    /// One of the authority, and two that it has signed: for a server on the loopback address,
    /// and for a client.
    pub fn make() -> Self {
        let made = Self {
            dir: tempfile::tempdir().expect("a folder"),
        };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        made.openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"
        ));
        let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
        fs::write(made.path("names"), names).expect("a file");
        for name in ["server", "client"] {
            made.openssl(&format!(
                "req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile names -out {name}.pem"
            ));
        }
        made
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file")
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .output()
            .expect("openssl is missing: run ./scripts/test, or `apt-get install openssl`");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    }
}
