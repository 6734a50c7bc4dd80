//! Runs the hot path under callgrind: `counted SIDE DEPTH COUNT` calls one of the functions named `counted_…`
//! once, and prints the number of I/Os.
//!
//! `cargo xtask bench --instructions` starts it, and checks the machine code of `upcie_benches::caller` in
//! it.

use std::{env, hint::black_box, process::ExitCode};
use upcie_benches::{
    caller,
    hand::{Hand, device_pass},
    libupcie::LibUpcie,
    ours::Ours,
    rings::Rings,
};

const ENTRIES: usize = 1024;

#[inline(never)]
fn counted_ours(side: &mut Ours, count: u64) -> u64 {
    side.pass(count)
}

#[inline(never)]
fn counted_caller(side: &mut Ours, count: u64) -> u64 {
    side.pass_by_caller(count)
}

#[inline(never)]
fn counted_c_poll(side: &mut LibUpcie, count: u64) -> u64 {
    side.pass_by_poll(count)
}

#[inline(never)]
fn counted_c_many(side: &mut LibUpcie, count: u64) -> u64 {
    side.pass_by_many(count)
}

#[inline(never)]
fn counted_hand(side: &mut Hand, depth: usize, count: u64) -> u64 {
    side.pass(depth, count)
}

#[inline(never)]
fn counted_device(side: &mut Rings, depth: usize, count: u64) -> u64 {
    device_pass(side, depth, count)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let numbers = arguments.get(1).zip(arguments.get(2));
    let numbers = numbers.and_then(|(depth, count)| depth.parse::<usize>().ok().zip(count.parse().ok()));
    let Some((depth, count)) = numbers.filter(|(depth, _)| (1..ENTRIES).contains(depth)) else {
        eprintln!("usage: counted ours|caller|c_poll|c_many|hand|device DEPTH COUNT, DEPTH below {ENTRIES}");
        return ExitCode::FAILURE;
    };
    let done = match arguments[0].as_str() {
        "ours" => counted_ours(&mut Ours::new(ENTRIES, depth), count),
        "caller" => counted_caller(&mut Ours::new(ENTRIES, depth), count),
        "c_poll" => counted_c_poll(&mut LibUpcie::new(ENTRIES, depth), count),
        "c_many" => counted_c_many(&mut LibUpcie::new(ENTRIES, depth), count),
        "hand" => counted_hand(&mut Hand::new(ENTRIES, depth), depth, count),
        "device" => counted_device(&mut Rings::new(ENTRIES), depth, count),
        side => {
            eprintln!("there is no side {side}");
            return ExitCode::FAILURE;
        }
    };
    println!("{done}");
    // The code of these functions is checked, not run.
    black_box((caller::reap_and_write as fn(_, _, _) -> _, caller::reap_and_submit as unsafe fn(_, _) -> _));
    ExitCode::SUCCESS
}
