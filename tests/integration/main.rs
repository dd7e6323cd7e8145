//! The `mongoferry` command.

fn main() {}
