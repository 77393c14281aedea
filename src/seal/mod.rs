//! Encryption of what leaves the process, and the keys for it.
//!
//! With a [`KeyRing`] set on the [`Builder`](crate::Builder::key_ring), every value in L2 is sealed,
//! and the names of partitions and entries are HMAC-SHA-256 digests under a key of the ring that
//! stays the same when sealing keys rotate. An operator finds a user's record by
//! [`TokenCache::partition_id`](crate::TokenCache::partition_id).
//!
//! # What is sealed, and how
//!
//! AES-256-GCM-SIV (RFC 8452) of the RustCrypto project, which wipes its key schedules and needs no
//! C compiler; with the processor's AES instructions it takes 5 µs for 7 KB. Each partition has a
//! key of its own, HKDF-SHA-256 (RFC 5869) of the ring's active key and the partition's digest, so no
//! key comes near 2³² messages; nonces are random, and this cipher bears one that repeats (after
//! a virtual machine was cloned, say) without giving up more than whether two values are equal.
//!
//! The tag covers, besides the payload: the format version, the key id, the partition's digest, the
//! entry's name and the partition's generation. So a value does not open when it was changed or cut
//! off, when it was copied to another user or to another entry, or when it is from before
//! a sign-out. The layout of the bytes is described in the source of `codec`, and fixed by the files
//! in `tests/golden`.
//!
//! What cannot be opened is a miss: counted by reason in
//! [`Stats::unopenable_reasons`](crate::Stats::unopenable_reasons), logged without content, and
//! replaced by the next commit. It never fails a request.
//!
//! **What sealing does not do.** Whoever can write to L2 can delete records, and can put back a whole
//! older record of the same partition, its generation included: tokens that were replaced or signed
//! out since then come back, for every instance that does not remember the sign-out. Nothing that is
//! kept beside what it protects can tell; where that matters, let the provider revoke the tokens at
//! sign-out. The sizes of values, when they are written and how often are visible.
//! Whoever can read the process's memory has the tokens.
//!
//! **What remains in memory.** Tokens and keys are wiped when the last handle to them is dropped, and
//! so are the buffers that they are written, sealed, opened and read in: after a sign-out, or once L1
//! has evicted a user, a core dump of a process with encryption holds none of that user's tokens. Not
//! wiped are the buffers of others: without encryption those of the Redis client and of SQLite (and
//! the pages of its file), always those of HTTP clients and servers that a token went through. The
//! id of a session stays as long as L1 remembers that the session has ended, and copies of it may
//! stay longer where maps have kept it. A session in cookies is gone when its request is, or
//! when its slot is dropped.
//!
//! # Keys
//!
//! | ring | kept in | for |
//! |---|---|---|
//! | [`KeyRing::generate`] | memory | tests |
//! | [`KeyRing::from_keys`], [`KeyRing::from_env`] | what the application has | a secret store that rotates by itself |
//! | [`KeyRing::open_dir`] | files of mode 0600 | all processes of one machine, or a shared mount |
//! | [`KeyRing::open_in_store`] | Redis, PostgreSQL, MySQL, MariaDB, SQLite | a fleet, without another service |
//! | [`KeyRing::builder`] | any [`KeyRepository`] | everything else |
//!
//! A ring in a repository rotates by itself:
//!
//! | | default | why |
//! |---|---|---|
//! | a key seals for | 90 days | usual for keys that nobody has to touch |
//! | a new key is known before it seals for | 24 hours | longer than any instance is without news |
//! | each instance reads the repository every | 5 minutes | how long a revocation takes |
//! | at an unknown key id the repository is read at once, but only every | 5 seconds | ids can be invented |
//! | a request waits for that no longer than | 1 second | its user would have to sign in again |
//!
//! So every instance knows a key before any seals with it, clocks may differ by hours, and an
//! instance that slept through a rotation catches up with the first value it does not know. The
//! schedule follows the ring's [`Clock`](crate::Clock). Old keys are kept: they open what they
//! have sealed, which is sealed anew when it is next written.
//!
//! What a repository loses, an instance that runs puts back at its next refresh. Where a repository is emptied, and an
//! instance starts before that, it begins another ring: all instances go over to that one, with a `WARN`, and all users
//! have to sign in again. Stop starts until the keys are back.
//!
//! A [`KeyProtector`] wraps the keys at rest: [`RingKey`] (a key from a secret store),
//! `CertificateProtector` (feature `protect-certificate`), `PassphraseProtector` (feature
//! `protect-passphrase`), or a key service behind the trait. Where anybody can wrap (a certificate's
//! public key), whoever can write to the repository can add a key of their own, which then becomes
//! active: let only the service write there.
//!
//! # From no encryption to encryption
//!
//! [`accept_plaintext_until`](crate::Builder::accept_plaintext_until) says until when records that
//! are not sealed are still taken. When a partition is first used it is moved, in one step of the
//! store, from its old name to its new one and sealed; nobody signs in again. Instances that have
//! no ring yet do not see what was moved, so deploy the ring to all instances in one go, or in two
//! steps: first everywhere with [`seal_from`](crate::Builder::seal_from) at a time when all
//! instances will have it.
//!
//! ```
//! use tower_token_cache::{KeyRing, MemoryStore, TokenCache};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("keys");
//! let ring = KeyRing::open_dir(folder)?;
//! let cache = TokenCache::builder(MemoryStore::new()).key_ring(ring).build()?;
//! # Ok(())
//! # }
//! ```

mod aead;
#[cfg(feature = "__tests")]
mod bench;
mod builder;
#[cfg(feature = "protect-certificate")]
mod certificate;
mod dir;
mod erased;
mod error;
mod key;
mod keys;
#[cfg(feature = "protect-passphrase")]
mod passphrase;
mod protector;
mod record;
mod refresh;
mod repository;
mod ring;
mod schedule;
mod source;
mod synchronise;

pub(crate) use self::aead::{AFTER, BEFORE, PartitionCipher, Place, is_sealed, key_id};
#[cfg(feature = "__tests")]
#[doc(hidden)]
pub use self::bench::Bench;
pub use self::builder::KeyRingBuilder;
#[cfg(feature = "protect-certificate")]
pub use self::certificate::CertificateProtector;
pub use self::dir::DirRepository;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) use self::dir::MAX_RECORDS;
pub use self::error::{KeyRingError, KeyRingErrorKind};
pub use self::key::{KeyId, RingKey};
#[cfg(feature = "protect-passphrase")]
pub use self::passphrase::PassphraseProtector;
pub use self::protector::KeyProtector;
pub use self::repository::{KeyRecord, KeyRepository};
pub(crate) use self::ring::PartitionOpener;
pub use self::ring::{KeyInfo, KeyRing};
