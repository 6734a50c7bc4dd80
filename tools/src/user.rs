//! Looks up users and groups by name or number.

use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, Uid, User};

/// Parses the `USER` or `USER:GROUP` of an `--owner`, both as name or number. Returns the user's name and id,
/// and the group's id. Without a group it is the user's own one, or `None` for an unknown number.
///
/// # Errors
/// Fails if the user or group does not exist.
pub fn parse(text: &str) -> anyhow::Result<(String, u32, Option<u32>)> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (name, uid, own) = match User::from_name(user).context("looking up the user")? {
        Some(found) => (found.name, found.uid.as_raw(), Some(found.gid.as_raw())),
        None => match user.parse() {
            Ok(uid) => {
                let found = User::from_uid(Uid::from_raw(uid)).context("looking up the user")?;
                let gid = found.as_ref().map(|user| user.gid.as_raw());
                (found.map_or(user.to_owned(), |user| user.name), uid, gid)
            }
            Err(_) => bail!("--owner: there is no user {user:?}"),
        },
    };
    let gid = match group {
        None => own,
        Some(group) => match Group::from_name(group).context("looking up the group")? {
            Some(found) => Some(found.gid.as_raw()),
            None => match group.parse() {
                Ok(gid) => Some(Gid::from_raw(gid).as_raw()),
                Err(_) => bail!("--owner: there is no group {group:?}"),
            },
        },
    };
    Ok((name, uid, gid))
}
