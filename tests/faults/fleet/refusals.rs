//! The provider does not give tokens.

use std::time::Duration;

use super::{Fleet, PROCESSES, answers};
use common::provider::Refusal;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_not_asked_for_again() {
    let fleet = Fleet::start().await;
    fleet.sign_in("ada").await;
    // The whole burst is there before the answer is lost.
    fleet.provider.set(|behaviour| {
        behaviour.loses_answers = true;
        behaviour.after = Duration::from_secs(1);
    });
    let answers = answers(fleet.bursts("ada", 50)).await;
    fleet.assert_refused(&answers, 502, "failed");
    let provider = &fleet.provider;
    assert_eq!((provider.redemptions("ada"), provider.reuses()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_is_left_alone() {
    let fleet = Fleet::start().await;
    for (user, refusal, status, error) in [
        ("ada", Refusal::TooManyRequests(30), 503, "retry_later"),
        (
            "bob",
            Refusal::InvalidGrant,
            401,
            "reauthentication_required",
        ),
        ("eve", Refusal::Broken, 502, "failed"),
    ] {
        fleet.sign_in(user).await;
        let before = fleet.provider.calls();
        fleet
            .provider
            .set(|behaviour| behaviour.refusal = Some(refusal));
        let answers = answers(fleet.bursts(user, 250)).await;
        fleet.assert_refused(&answers, status, error);
        if status == 503 {
            let pauses = answers.iter().map(|answer| answer.retry_after.unwrap());
            assert!(pauses.into_iter().all(|pause| (1..=31).contains(&pause)));
        }
        let calls = fleet.provider.calls() - before;
        assert!((1..=PROCESSES as u64).contains(&calls), "{calls} calls");
    }

    // Who signs in again is not taken for who was refused.
    fleet.provider.set(|behaviour| behaviour.refusal = None);
    fleet.sign_in("bob").await;
    let again = answers([fleet.burst(0, "bob", "/acquire/graph", 50)]).await;
    fleet.assert_one_redemption("bob", &again);
}
