//! Entries of the summary. Both sides are measured in one run, interleaved.

use serde::Serialize;
use std::{env, fs, path::PathBuf};

/// One line of `summary.json`.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The measured quantity.
    pub name: String,
    /// The unit of `ours` and `theirs`.
    pub unit: &'static str,
    /// `lower` or `higher`.
    pub better: &'static str,
    /// The median of our side.
    pub ours: f64,
    /// The median of the peer.
    pub theirs: Option<f64>,
    /// The median of the ratios ours / theirs of each pair.
    pub ratio: Option<f64>,
    /// Half the range between the 10th and the 90th percentile of our side, relative to the median.
    pub spread: f64,
    /// The number of pairs measured.
    pub runs: usize,
}

/// Pairs of measurements that were taken one right after the other.
#[derive(Debug, Default)]
pub struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pairs {
    /// Adds one pair.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// Adds a measurement that has no peer.
    pub fn push_alone(&mut self, ours: f64) {
        self.ours.push(ours);
    }

    /// Prints the entry, and writes it to the directory in `UPCIE_BENCH_OUT` if that is set.
    ///
    /// # Panics
    /// Panics if the file can't be written: a lost result is a failed run.
    pub fn report(self, name: &str, unit: &'static str, better: &'static str) {
        if self.ours.is_empty() {
            return;
        }
        let ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        let median = percentile(&self.ours, 0.5);
        let entry = Entry {
            name: name.into(),
            unit,
            better,
            ours: median,
            theirs: (!self.theirs.is_empty()).then(|| percentile(&self.theirs, 0.5)),
            ratio: (!ratios.is_empty()).then(|| percentile(&ratios, 0.5)),
            spread: (percentile(&self.ours, 0.9) - percentile(&self.ours, 0.1)) / 2.0 / median,
            runs: self.ours.len(),
        };
        let text = serde_json::to_string(&entry).expect("plain data");
        println!("{text}");
        if let Some(directory) = env::var_os("UPCIE_BENCH_OUT").map(PathBuf::from) {
            fs::create_dir_all(&directory).expect("the directory for entries");
            fs::write(directory.join(format!("{}.json", name.replace('/', "-"))), text)
                .expect("writing an entry");
        }
    }
}

fn percentile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * at).round() as usize]
}
