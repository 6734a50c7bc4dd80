//! Progress bar of a transfer.

use indicatif::{ProgressBar, ProgressStyle};

/// Makes a progress bar over bytes, on stderr and only on a terminal. Without a length it only counts.
pub fn progress(what: &'static str, length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            let template = "{prefix:>9} [{bar:30}] {percent:>3} %  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
            (ProgressBar::new(length), template)
        }
        None => (ProgressBar::no_length(), "{prefix:>9} {binary_bytes}  {binary_bytes_per_sec}"),
    };
    let bar = bar.with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}
