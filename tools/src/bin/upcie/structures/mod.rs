//! `upcie log`, `id`, `feature`, `property` and `admin`: the structures of the specification, as text, JSON or bytes.

mod admin;
mod assign;
mod feature;
mod identify;
mod log;
mod names;
mod nvme_cli;
mod output;
mod property;

pub use admin::{AdminArgs, EXAMPLES as ADMIN_EXAMPLES, run as admin};
pub use feature::{EXAMPLES as FEATURE_EXAMPLES, FeatureArgs, is_feature, run as feature};
pub use identify::{EXAMPLES as ID_EXAMPLES, IdArgs, is_cns, is_structure, run as identify};
pub use log::{EXAMPLES as LOG_EXAMPLES, LogPageArgs, is_log, is_page, run as log};
pub use names::parse;
pub use nvme_cli::{Source, of_nvme_cli};
pub use output::{dump, hex, write_file};
pub use property::{EXAMPLES as PROPERTY_EXAMPLES, PropertyArgs, run as property};
