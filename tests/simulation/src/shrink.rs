//! Makes a failing case small: leaves out what it does not need to fail.

use crate::{Case, Op, run};

/// The most runs.
const RUNS: usize = 3000;

/// Returns a smaller case that fails as well. The same case always shrinks to the same one.
pub fn shrink(case: &Case) -> Case {
    let mut best = case.clone();
    let mut runs = 0;
    loop {
        let before = size(&best);
        let mut len = best.ops.len().div_ceil(2);
        while len > 0 {
            let mut at = 0;
            while at < best.ops.len() {
                let mut smaller = best.clone();
                smaller.ops.drain(at..(at + len).min(best.ops.len()));
                if !keep(&mut best, smaller, &mut runs) {
                    at += len;
                }
            }
            len /= 2;
        }
        for rule in (0..best.plan.rules.len()).rev() {
            let mut smaller = best.clone();
            smaller.plan.rules.remove(rule);
            keep(&mut best, smaller, &mut runs);
        }
        for op in 0..best.ops.len() {
            let count = if let Op::Turn { commands, .. } = &best.ops[op] { commands.len() } else { 0 };
            for command in (0..count).rev() {
                let mut smaller = best.clone();
                if let Op::Turn { commands, .. } = &mut smaller.ops[op] {
                    commands.remove(command);
                }
                keep(&mut best, smaller, &mut runs);
            }
            for command in 0..count {
                let mut smaller = best.clone();
                if let Op::Turn { commands, .. } = &mut smaller.ops[op]
                    && let Some(io) = commands.get_mut(command)
                {
                    io.blocks = 1;
                }
                keep(&mut best, smaller, &mut runs);
            }
        }
        if size(&best) == before || runs >= RUNS {
            return best;
        }
    }
}

/// Takes the smaller case if it still fails.
fn keep(best: &mut Case, smaller: Case, runs: &mut usize) -> bool {
    *runs += 1;
    let fails = *runs < RUNS && size(&smaller) < size(best) && run(&smaller, false).failure.is_some();
    if fails {
        *best = smaller;
    }
    fails
}

/// Returns the size of a case, as a number of things that a person has to read.
fn size(case: &Case) -> usize {
    let of = |op: &Op| match op {
        Op::Turn { commands, .. } => 1 + commands.iter().map(|io| 100 + io.blocks as usize).sum::<usize>(),
        _ => 1,
    };
    case.plan.rules.len() * 1000 + case.ops.len() * 1000 + case.ops.iter().map(of).sum::<usize>()
}
