//! The channel over a transport that fails on demand, in paused time.

mod faulty;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use self::faulty::{Faulty, Instance};
use super::outbox::CAPACITY;
use super::wire::{Body, InstanceId, Message};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Until a silent channel is noticed, with the defaults.
const NOTICED: Duration = Duration::from_millis(3_300);

fn invalidation(number: u64) -> Invalidation {
    Invalidation {
        partition: [7; 32],
        generation: 1,
        version: number,
        commit: None,
    }
}

fn invalidated(number: u64) -> Event {
    Event::Invalidated(vec![invalidation(number)])
}

/// Two instances that are alive and have heard of each other.
async fn two() -> (Instance, Instance) {
    let backplane = MemoryBackplane::new();
    let (mut a, mut b) = (Instance::on(&backplane), Instance::on(&backplane));
    a.alive().await;
    b.alive().await;
    sleep(2 * SECOND).await;
    (a, b)
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_the_others_at_once_and_not_its_sender() {
    let (mut a, mut b) = two().await;
    let started = Instant::now();
    a.publish(1);
    b.hears(1).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    b.publisher.publish_everything_changed(4);
    assert_eq!(a.next().await, Event::EverythingChanged { generation: 4 });
    a.quiet(60 * SECOND).await;
    b.quiet(60 * SECOND).await;
    assert_eq!(a.publisher.stats().gaps, 0);
    assert!(a.publisher.unheard_for() <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_is_published_together_arrives_together() {
    let (a, mut b) = two().await;
    a.publisher.publish((0..10_000).map(invalidation));
    let mut heard = Vec::new();
    let mut events = 0;
    while heard.len() < 10_000 {
        let Event::Invalidated(batch) = b.next().await else {
            panic!("no gap");
        };
        heard.extend(batch);
        events += 1;
    }
    assert_eq!(heard, (0..10_000).map(invalidation).collect::<Vec<_>>());
    assert_eq!(events, 10, "1024 each");
}

#[tokio::test(start_paused = true)]
async fn being_connected_proves_nothing() {
    let backplane = MemoryBackplane::new();
    let mut a = Instance::on(&backplane);
    a.faults.set(|faults| &faults.deaf, true);
    a.quiet(20 * SECOND).await;
    assert!(!a.publisher.is_alive());
    assert!(a.publisher.stats().joined >= 5, "it is tried again");
    a.faults.set(|faults| &faults.deaf, false);
    let healed = Instant::now();
    let since = a.alive().await;
    assert!(since >= healed && healed.elapsed() < 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_dies_silently_is_noticed_and_made_again() {
    let (mut a, mut b) = two().await;
    let joined = b.publisher.stats().joined;
    b.faults.set(|faults| &faults.deaf, true);
    let died = Instant::now();
    let since = b.lost().await;
    assert!(since <= died && died.elapsed() <= NOTICED);
    assert!(died - since <= SECOND, "the last heartbeat that came back");
    assert!(!b.publisher.is_alive());
    // The other still hears it.
    a.quiet(60 * SECOND).await;
    assert!(b.publisher.unheard_for() >= 60 * SECOND);
    b.faults.set(|faults| &faults.deaf, false);
    let healed = Instant::now();
    assert!(b.alive().await >= healed);
    assert!(healed.elapsed() < 6 * SECOND);
    assert!(b.publisher.stats().joined > joined);
    a.quiet(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_is_missed_by_the_others() {
    let (mut a, mut b) = two().await;
    a.faults.set(|faults| &faults.mute, true);
    let died = Instant::now();
    a.publish(1);
    b.lost().await;
    assert!(died.elapsed() <= NOTICED);
    a.lost().await;
    sleep(5 * SECOND).await;
    a.faults.set(|faults| &faults.mute, false);
    let healed = Instant::now();
    assert!(a.alive().await >= healed);
    assert!(b.alive().await >= healed);
    assert!(healed.elapsed() < 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_outage_for_all_ends_for_all() {
    let (mut a, mut b) = two().await;
    for instance in [&a, &b] {
        instance.faults.set(|faults| &faults.refused, true);
        instance.faults.set(|faults| &faults.mute, true);
    }
    a.lost().await;
    b.lost().await;
    sleep(10 * SECOND).await;
    // Kept meanwhile.
    a.publish(1);
    for instance in [&a, &b] {
        instance.faults.set(|faults| &faults.refused, false);
        instance.faults.set(|faults| &faults.mute, false);
    }
    let healed = Instant::now();
    loop {
        match b.next().await {
            Event::Alive { .. } => break,
            Event::Invalidated(_) | Event::Lost { .. } => {}
            event => panic!("{event:?}"),
        }
    }
    a.alive().await;
    assert!(healed.elapsed() < 5 * SECOND, "{:?}", healed.elapsed());
    sleep(2 * SECOND).await;
    while b.events.try_next().is_some() {}
    a.quiet(60 * SECOND).await;
    b.quiet(60 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_during_an_outage_is_sent_after_it() {
    let (mut a, mut b) = two().await;
    a.faults.set(|faults| &faults.hung, true);
    a.publish(1);
    a.lost().await;
    b.lost().await;
    let kept = 20_000;
    a.publisher.publish((2..=kept).map(invalidation));
    a.faults.set(|faults| &faults.hung, false);
    // The channel is not alive before everything was heard that was kept.
    let mut heard = Vec::new();
    loop {
        match b.next().await {
            Event::Invalidated(batch) => heard.extend(batch),
            Event::Alive { .. } => break,
            event => panic!("{event:?}"),
        }
    }
    assert!(heard.into_iter().eq((1..=kept).map(invalidation)));
    a.alive().await;
    assert_eq!(b.publisher.stats().gaps, 1, "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn a_lost_message_is_noticed_with_the_next_heartbeat() {
    let (a, mut b) = two().await;
    b.faults.lose.store(1, Ordering::SeqCst);
    let published = Instant::now();
    a.publish(1);
    let lost = b.lost().await;
    let alive = b.alive().await;
    assert!(lost <= published && alive >= published);
    assert!(published.elapsed() <= SECOND);
    // And at once with the next message.
    b.faults.lose.store(1, Ordering::SeqCst);
    a.publish(2);
    sleep(Duration::from_millis(1)).await;
    a.publish(3);
    b.lost().await;
    b.alive().await;
    b.hears(3).await;
    b.quiet(60 * SECOND).await;
    assert_eq!(b.publisher.stats().gaps, 2);
}

#[tokio::test(start_paused = true)]
async fn repeated_messages_are_harmless() {
    let (a, mut b) = two().await;
    b.faults.set(|faults| &faults.twice, true);
    a.publish(1);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(
        b.next().await,
        Event::Invalidated(vec![invalidation(1), invalidation(1)])
    );
    b.quiet(60 * SECOND).await;
    assert_eq!(b.publisher.stats().gaps, 0);
}

#[tokio::test(start_paused = true)]
async fn reordered_messages_all_arrive_and_are_at_worst_a_gap() {
    let (a, mut b) = two().await;
    b.faults.set(|faults| &faults.swap, true);
    a.publish(1);
    sleep(Duration::from_millis(1)).await;
    a.publish(2);
    b.lost().await;
    b.alive().await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(
        b.next().await,
        Event::Invalidated(vec![invalidation(2), invalidation(1)])
    );
    b.quiet(60 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn heartbeats_that_come_too_late_prove_nothing() {
    let (_a, mut b) = two().await;
    *b.faults.delay.lock().unwrap() = 4 * SECOND;
    b.lost().await;
    b.quiet(60 * SECOND).await;
    *b.faults.delay.lock().unwrap() = Duration::ZERO;
    b.alive().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_goodbye_is_not_missed() {
    let (a, mut b) = two().await;
    a.publish(1);
    a.publisher.close().await;
    b.hears(1).await;
    b.quiet(120 * SECOND).await;
    // A dropped one says it too.
    let c = Instance::on(&MemoryBackplane::new());
    drop((a, c));
    let (a, mut b) = two().await;
    drop(a);
    b.quiet(120 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn who_dies_is_missed_for_a_while_and_then_forgotten() {
    let (a, mut b) = two().await;
    a.faults.set(|faults| &faults.mute, true);
    let died = Instant::now();
    drop(a);
    b.lost().await;
    let since = b.alive().await;
    assert!(died.elapsed() >= 29 * SECOND && died.elapsed() < 31 * SECOND);
    assert_eq!(since, Instant::now(), "what it did until then went unheard");
    b.quiet(60 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_met_late_may_have_been_missed() {
    let backplane = MemoryBackplane::new();
    let mut a = Instance::on(&backplane);
    a.alive().await;
    a.publish(1);
    sleep(SECOND).await;
    let mut b = Instance::on(&backplane);
    b.alive().await;
    // The next heartbeat says that there was a message.
    b.lost().await;
    b.alive().await;
    // One that has said nothing yet is no gap for anybody.
    let mut c = Instance::on(&backplane);
    c.alive().await;
    a.quiet(60 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_overflows_is_a_gap_for_the_others() {
    let (mut a, mut b) = two().await;
    a.faults.set(|faults| &faults.hung, true);
    a.publish(0);
    a.lost().await;
    a.publisher
        .publish((0..CAPACITY as u64 + 10).map(invalidation));
    assert_eq!(a.publisher.stats().dropped, CAPACITY as u64);
    b.lost().await;
    a.faults.set(|faults| &faults.hung, false);
    a.alive().await;
    sleep(2 * SECOND).await;
    let mut gaps = 0;
    let mut heard = 0;
    while let Some(event) = b.events.try_next() {
        match event {
            Event::Invalidated(batch) => heard += batch.len(),
            Event::Alive { .. } => gaps += 1,
            _ => {}
        }
    }
    assert!(gaps >= 1);
    assert_eq!(heard, 11, "what was on its way, and what came after");
    assert!(b.publisher.is_alive());

    // Also when the channel was never lost.
    let (a, mut b) = two().await;
    a.publisher
        .publish((0..CAPACITY as u64 + 10).map(invalidation));
    b.lost().await;
    b.alive().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_listen_costs_bounded_memory_and_is_told_of_a_gap() {
    let (a, mut b) = two().await;
    for _ in 0..20 {
        a.publisher.publish((0..10_000).map(invalidation));
        sleep(Duration::from_millis(10)).await;
    }
    let (mut heard, mut gaps) = (0, 0);
    while let Some(event) = b.events.try_next() {
        match event {
            Event::Invalidated(batch) => heard += batch.len(),
            Event::Alive { .. } => gaps += 1,
            _ => {}
        }
    }
    assert!(heard <= 65_536 && gaps >= 1, "{heard} {gaps}");
    assert!(b.publisher.is_alive());
}

#[tokio::test(start_paused = true)]
async fn foreign_bytes_are_counted_and_a_newer_kind_is_a_gap() {
    let backplane = MemoryBackplane::new();
    let mut a = Instance::on(&backplane);
    a.alive().await;
    let link = backplane.join("ns:invalidate").await.unwrap();
    let mut sender = link.sender;
    let message = |sequence, body| Message {
        sender: InstanceId([1; 16]),
        sequence,
        body,
    };
    let mut newer = message(1, Body::EverythingChanged(1)).encode().to_vec();
    newer[4] = 2;
    let garbage = [
        Bytes::new(),
        Bytes::from_static(b"hello"),
        Bytes::from(vec![b't'; 10 * MAX_MESSAGE]),
        Bytes::from(newer),
    ];
    sender.send(&garbage).await.unwrap();
    a.quiet(Duration::from_millis(1)).await;
    assert_eq!(a.publisher.stats().foreign, 4);
    let sent = Instant::now();
    let unknown = message(1, Body::Unknown).encode();
    sender.send(&[unknown]).await.unwrap();
    a.lost().await;
    a.alive().await;
    assert_eq!(sent.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn invented_instances_cost_bounded_memory() {
    let backplane = MemoryBackplane::new();
    let mut a = Instance::on(&backplane);
    a.alive().await;
    let mut sender = backplane.join("ns:invalidate").await.unwrap().sender;
    let mut invent = async |numbers: std::ops::Range<u128>| {
        for number in numbers {
            let message = Message {
                sender: InstanceId(number.to_be_bytes()),
                sequence: 0,
                body: Body::Goodbye,
            };
            sender.send(&[message.encode()]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    invent(0..1024).await;
    a.quiet(Duration::from_millis(1)).await;
    // Nobody remembers what the others have sent.
    invent(1024..1025).await;
    a.lost().await;
    a.alive().await;
    invent(1025..5000).await;
    a.lost().await;
    a.alive().await;
    a.quiet(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_fails_is_lost_at_once() {
    let (_a, mut b) = two().await;
    b.faults.set(|faults| &faults.broken, true);
    b.faults.set(|faults| &faults.refused, true);
    let broken = Instant::now();
    b.lost().await;
    assert!(broken.elapsed() <= SECOND, "the next message");
    b.faults.set(|faults| &faults.broken, false);
    b.faults.set(|faults| &faults.refused, false);
    b.alive().await;
    assert!(broken.elapsed() <= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn joining_that_never_ends_is_given_up() {
    let hung = Faulty::default();
    hung.faults.set(|faults| &faults.hung, true);
    let faults = hung.faults.clone();
    let runtime = tokio::runtime::Handle::current();
    let (publisher, mut events) = open(Arc::new(hung), "ns", &runtime).unwrap();
    sleep(SECOND).await;
    faults.set(|faults| &faults.hung, false);
    let event = timeout(5 * SECOND, events.next()).await;
    assert!(matches!(event, Ok(Event::Alive { .. })), "{event:?}");
    assert!(publisher.is_alive());
}

#[tokio::test(start_paused = true)]
async fn instances_with_other_intervals_get_along() {
    let backplane = MemoryBackplane::new();
    let slow = KeepAlive::default()
        .heartbeat(10 * SECOND)
        .lost_after(30 * SECOND);
    let mut a = Instance::with(&backplane, slow.forget_after(60 * SECOND));
    let mut b = Instance::on(&backplane);
    a.alive().await;
    b.alive().await;
    a.quiet(120 * SECOND).await;
    b.quiet(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn leaving_takes_bounded_time_whatever_the_channel_does() {
    for hang_first in [false, true] {
        let backplane = MemoryBackplane::new();
        let mut a = Instance::on(&backplane);
        if hang_first {
            a.faults.set(|faults| &faults.hung, true);
        } else {
            a.alive().await;
            a.faults.set(|faults| &faults.hung, true);
        }
        a.publish(1);
        sleep(SECOND).await;
        let closed = Instant::now();
        a.publisher.close().await;
        assert!(closed.elapsed() <= 6 * SECOND);
        // Whoever still listens knows that it hears nothing.
        assert!(!a.publisher.is_alive());
    }
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_does_not_hold_together_is_refused() {
    let good = KeepAlive::default();
    let bad = [
        (good.heartbeat(Duration::ZERO), "heartbeat"),
        (good.heartbeat(61 * SECOND), "heartbeat"),
        (good.lost_after(SECOND), "lost_after"),
        (good.forget_after(2 * SECOND), "forget_after"),
    ];
    for (keep_alive, option) in bad {
        let faulty = Faulty {
            keep_alive,
            ..Faulty::default()
        };
        let runtime = tokio::runtime::Handle::current();
        let error = open(Arc::new(faulty), "ns", &runtime).unwrap_err();
        assert_eq!(error.option(), option);
    }
}

#[test]
fn a_partition_is_not_spelled_out() {
    let text = format!("{:?}", invalidation(3));
    assert_eq!(text, "Invalidation(070707…, generation 1, version 3)");
}
