//! Budgets, stopwatches and backoffs, by a clock that the test moves.

use super::{Backoff, Budget, MessageWatch, Stopwatch, budget::counted, charge, charged, spent};
use crate::{clock::Clock, testing::ManualClock};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_tighter_budget_holds() {
    assert_eq!(Budget::left(), Duration::MAX);
    let outer = Budget::new(5 * SECOND);
    charge(SECOND);
    assert_eq!(Budget::left(), 4 * SECOND);
    let inner = Budget::new(SECOND);
    charge(2 * SECOND);
    assert_eq!(Budget::left(), Duration::ZERO);
    assert!(MessageWatch::new(SECOND).slice().is_none());
    drop(inner);
    assert_eq!(Budget::left(), 2 * SECOND);
    let wider = Budget::new(9 * SECOND);
    assert_eq!(Budget::left(), 2 * SECOND);
    drop((wider, outer));
    assert_eq!(Budget::left(), Duration::MAX);
}

#[test]
fn the_rest_of_a_deadline_names_the_whole() {
    let _budget = Budget::rest(SECOND, 5 * SECOND);
    assert_eq!((Budget::left(), MessageWatch::new(9 * SECOND).limit()), (SECOND, 5 * SECOND));
    charge(SECOND);
    assert!(MessageWatch::new(9 * SECOND).slice().is_none());
}

#[test]
fn a_stop_within_a_message_counts_as_one_slice() {
    let clock = ManualClock::default();
    let mut watch = MessageWatch::of(Stopwatch::of(&clock), SECOND);
    clock.sleep(60 * SECOND);
    assert!(watch.slice().is_some(), "a minute's stop counts as 250 ms");
    assert_eq!(watch.waited().as_millis(), 250);
    for _ in 0..3 {
        clock.sleep(60 * SECOND);
        let _ = watch.slice();
    }
    assert!(watch.slice().is_none());
}

#[test]
fn an_access_is_charged_once() {
    let before = spent();
    charged(|| charged(|| charge(SECOND)));
    assert_eq!(spent() - before, SECOND);
    charged(|| std::thread::sleep(Duration::from_millis(2)));
    assert!(spent() - before > SECOND);
}

#[test]
fn a_stop_counts_as_one_interval() {
    let clock = ManualClock::default();
    let mut watch = Stopwatch::of(&clock);
    for (passed, waited) in [(100, 100), (0, 100), (60_000, 350), (100, 450)] {
        clock.sleep(Duration::from_millis(passed));
        assert_eq!(watch.waited(), Duration::from_millis(waited));
    }
}

/// Messages to a server may take long, so the stopwatch counts their whole time; other intervals count 250 ms at most.
#[test]
fn a_look_by_message_counts_in_full() {
    let clock = ManualClock::default();
    let (mut watch, spent) = (Stopwatch::of(&clock), counted());
    let (start, ms) = (clock.now(), Duration::from_millis);
    let mut waited = |at, messages| watch.waited_at(start + ms(at), spent + ms(messages));
    assert_eq!(waited(4_900, 4_900), ms(4_900));
    assert_eq!(waited(65_900, 5_900), ms(6_150), "and a stop as little");
    assert_eq!(waited(66_000, 0), ms(6_250), "another thread's total");
}

#[test]
fn a_backoff_ends_by_its_clock_after_one_last_look() {
    let clock = ManualClock::default();
    let mut backoff = Backoff::of_memory(Stopwatch::of(&clock), 60 * SECOND, 90 * SECOND);
    let rounds = |backoff: &mut Backoff<'_>| {
        let (mut rounds, start) = (0, clock.now());
        while backoff.pause() {
            rounds += 1;
        }
        (rounds, clock.now() - start)
    };
    let (first, time) = rounds(&mut backoff);
    assert_eq!(time, 60 * SECOND);
    assert!(first > 60_000, "sleeps of 1 ms at most");
    assert!(backoff.is_due(SECOND) && !backoff.is_due(SECOND));
    backoff.renew(60 * SECOND, 90 * SECOND);
    assert_eq!((backoff.limit(), rounds(&mut backoff).1), (30 * SECOND, 30 * SECOND));
    assert!(!backoff.pause());
}

#[test]
fn a_wait_within_a_wait_counts_in_full() {
    let clock = ManualClock::default();
    let mut whole = Stopwatch::of(&clock);
    let wait = |watch, limit| {
        let mut backoff = Backoff::of_memory(watch, limit, 600 * SECOND);
        // A message in it is counted once.
        charge(SECOND);
        clock.sleep(SECOND);
        while backoff.pause() {}
    };
    wait(Stopwatch::of(&clock), 10 * SECOND);
    assert_eq!(whole.waited(), 10 * SECOND);
    // A copy tells of its wait as well, and so does a wait with another one in it.
    let copy = whole;
    wait(copy, 5 * SECOND);
    let mut outer = Backoff::new(Stopwatch::of(&clock), 20 * SECOND);
    wait(Stopwatch::of(&clock), 3 * SECOND);
    while outer.pause() {}
    drop(outer);
    assert_eq!(whole.waited(), 35 * SECOND);
    // A stop within a wait is one interval for all.
    let mut stopped = Backoff::new(Stopwatch::of(&clock), SECOND);
    clock.sleep(60 * SECOND);
    while stopped.pause() {}
    drop(stopped);
    assert_eq!(whole.waited(), 36 * SECOND + Duration::from_millis(250));
}

/// A wait for another thread was an interval of 250 ms for all other stopwatches of its thread.
#[test]
fn a_wait_by_other_means_counts_in_full() {
    let clock = ManualClock::default();
    let mut whole = Stopwatch::of(&clock);
    let mut backoff = Backoff::of_memory(Stopwatch::of(&clock), Duration::MAX, 10 * SECOND);
    // Like a gate, which asks every 100 ms.
    while !backoff.left().is_zero() {
        clock.sleep(SECOND / 10);
    }
    drop(backoff);
    assert_eq!(whole.waited(), 10 * SECOND);
}
