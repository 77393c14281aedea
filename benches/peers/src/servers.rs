//! The servers that tests start, from the same files. The package that has them turns on all features of the crate, which
//! would change what is measured.

#[path = "../../../tests/common/src/certificates.rs"]
pub mod certificates;
#[path = "../../../tests/common/src/disk.rs"]
pub mod disk;
#[path = "../../../tests/common/src/mariadb.rs"]
pub mod mariadb;
#[path = "../../../tests/common/src/memcached.rs"]
pub mod memcached;
#[path = "../../../tests/common/src/postgres.rs"]
pub mod postgres;
#[path = "../../../tests/common/src/process.rs"]
pub mod process;

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("an address").port()
}
