//! Who the master of a service is, by its sentinels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bb8_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value, cmd,
};
use parking_lot::{Mutex, MutexGuard};

use super::access::{Access, Opened};
use super::address::located;
use super::failure::is_master;

/// How often the sentinels are asked while nothing is wrong. A master that is replaced although it
/// works may take writes for another ten seconds until it is told, and those are lost.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// A server's host and port.
pub(crate) type Place = (String, u16);

/// The sentinels of one service.
pub(crate) struct Sentinels {
    sentinels: Vec<Client>,
    service: String,
    /// How to sign in to the master, wherever it is.
    master: ConnectionInfo,
    access: Access,
    config: AsyncConnectionConfig,
    /// The sentinel that answered last: one that is down is not asked first each time.
    preferred: AtomicUsize,
    named: Mutex<Option<Place>>,
    watched: AtomicBool,
}

/// The server that is the master.
pub(crate) struct Master {
    pub(crate) opened: Opened,
    /// For more connections to it.
    pub(crate) client: Client,
    pub(crate) place: Place,
}

impl Sentinels {
    pub(crate) fn new(
        sentinels: Vec<ConnectionInfo>,
        service: String,
        master: ConnectionInfo,
        access: &Access,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let sentinels = sentinels.into_iter().map(|info| access.open_sentinel(info));
        Ok(Self {
            sentinels: sentinels.collect::<RedisResult<_>>()?,
            service,
            master,
            access: access.clone(),
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(Some(timeout)),
            preferred: AtomicUsize::default(),
            named: Mutex::default(),
            watched: AtomicBool::default(),
        })
    }

    /// Watches them from now on, for [`name_another`](Self::name_another).
    pub(super) fn watch(self: &Arc<Self>) {
        if self.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(sentinels) = weak.upgrade() {
                if let Some(place) = sentinels.ask().await {
                    *sentinels.named() = Some(place);
                }
                drop(sentinels);
                tokio::time::sleep(WATCH_EVERY).await;
            }
        });
    }

    /// Whether another server is the master by now. As long as no sentinel can be asked it is not.
    pub(super) fn name_another(&self, place: &Place) -> bool {
        self.named().as_ref().is_some_and(|named| named != place)
    }

    /// Connects to the master. A sentinel that names a server which is none, or no longer, has not
    /// heard of the failover yet: then the next one is asked.
    pub(crate) async fn connect(&self) -> RedisResult<Master> {
        let mut last_error = unknown();
        for at in self.order() {
            // Beforehand: whoever runs out of patience here goes on from here.
            self.preferred.store(at, Ordering::Relaxed);
            match self.master_by(at).await {
                Ok(master) => return Ok(master),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// The master's place, by the first that answers.
    async fn ask(&self) -> Option<Place> {
        for at in self.order() {
            if let Ok(place) = self.place_by(at).await {
                self.preferred.store(at, Ordering::Relaxed);
                return Some(place);
            }
        }
        None
    }

    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.sentinels.len());
        (first..first + count).map(move |at| at % count)
    }

    async fn place_by(&self, at: usize) -> RedisResult<Place> {
        let sentinel = &self.sentinels[at];
        let mut sentinel = sentinel
            .get_multiplexed_async_connection_with_config(&self.config)
            .await?;
        let place = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.service)
            .query_async::<Option<Place>>(&mut sentinel)
            .await?;
        place.ok_or_else(unknown)
    }

    async fn master_by(&self, at: usize) -> RedisResult<Master> {
        let place = self.place_by(at).await?;
        let (host, port) = place.clone();
        let client = self.access.open(located(&self.master, host, port))?;
        let mut opened = self.access.connect(&client, &self.config).await?;
        let role = cmd("ROLE");
        let role = role.query_async::<Value>(&mut opened.connection).await;
        match is_master(&role) {
            true => Ok(Master {
                opened,
                client,
                place,
            }),
            false => Err(unknown()),
        }
    }

    /// No code that can panic runs under the lock.
    fn named(&self) -> MutexGuard<'_, Option<Place>> {
        self.named.lock()
    }
}

fn unknown() -> RedisError {
    let kind = ErrorKind::MasterNameNotFoundBySentinel;
    (kind, "no sentinel knows a master of this service").into()
}
