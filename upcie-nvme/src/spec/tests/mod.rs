mod admin;
mod bits;
mod commands;
mod hostile;
mod layout;
mod status;
mod typed;
mod zones;
