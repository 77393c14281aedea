//! One module per guarantee of the design (§4), by number. Guarantee 10 is in
//! `tests/process-wide`, because it captures all logs.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test")]

mod acquired_meanwhile;
mod acquisitions_wait_for_l2_no_longer;
mod acquisitions_wait_their_turn;
mod attacks;
mod clients;
mod clocks;
mod dropped_anywhere;
mod each_key_of_redis;
mod events;
mod g01_an_l1_hit_costs_no_l2_round_trip;
mod g02_no_lost_update;
mod g03_sign_out_is_final;
mod g04_refresh_happens_once;
mod g05_cancellation_safe;
mod g06_nothing_stale_for_long;
mod g07_l2_outage_is_survivable;
mod g08_absent_unavailable_and_unopenable_differ;
mod g09_shutdown_drains;
mod g11_the_byte_limit_holds;
mod g12_bounded_everything;
mod g13_l2_is_far_away;
mod health;
mod invented_ids_leave_no_trace;
mod lives;
mod losses;
mod metrics_are_true;
mod move_to;
mod moves_in_steps;
mod nested;
mod refresh_token_expiry;
mod revocation;
mod session_values;
mod sessions;
mod settings;
mod sign_out_all;
mod size_of_a_partition;
mod skewed_clocks;
mod spans;
mod told;
mod two_databases;
mod values_are_taken_once;
mod what_is_under_way;
