//! Key value namespaces: the commands that they take. To the commands of plain namespaces they have no blocks.

mod commands;
mod identify;
mod state;

pub(super) use identify::page;
pub(super) use state::Keys;

use super::{Options, namespace::Namespace};

/// Makes the keys of namespaces; empty if none has keys.
pub(super) fn all(options: &Options, namespaces: &[Namespace]) -> Vec<Option<Keys>> {
    if !options.keys.any() {
        return Vec::new();
    }
    let keys = |namespace: &Namespace| Keys::new(options, namespace.capacity);
    namespaces.iter().map(|namespace| namespace.keys.then(|| keys(namespace))).collect()
}
