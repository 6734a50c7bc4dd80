//! Writes the seeds of the fuzz targets as files, for a fuzzer: `seeds DIRECTORY`, one directory below it for each target.
#![forbid(unsafe_code)]

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(root) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIRECTORY");
        return ExitCode::FAILURE;
    };
    for target in upcie_fuzz::TARGETS {
        let directory = root.join(target.name);
        let written = fs::create_dir_all(&directory).and_then(|()| {
            (0..).zip((target.seeds)()).try_for_each(|(number, seed): (u32, _)| {
                fs::write(directory.join(format!("seed-{number:03}")), seed)
            })
        });
        if let Err(error) = written {
            eprintln!("seeds: {}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
