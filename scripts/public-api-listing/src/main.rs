//! Prints the public API that a file of rustdoc JSON describes, a line per item. Run it with `scripts/public-api`.

use std::collections::HashSet;
use std::{env, error::Error};

use public_api::Builder;

/// Traits that the compiler and macros implement, with no promise to a user of the crate.
const UNPROMISED: [&str; 5] = [
    "::Freeze for ",
    "::StructuralPartialEq for ",
    "::Unpin for ",
    "::UnsafeUnpin for ",
    "UnwindSafe for ",
];

fn main() -> Result<(), Box<dyn Error>> {
    let json = env::args_os()
        .nth(1)
        .ok_or("usage: public-api-listing <file>")?;
    let api = Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .include_function_parameter_names(true);
    let written_out = api
        .clone()
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    let written_out: HashSet<String> = written_out.items().map(|item| item.to_string()).collect();

    // A type with two public paths has its methods and traits once.
    let mut listed = HashSet::new();
    for item in api.build()?.items() {
        let line = item.to_string();
        // Of what is derived or automatic (`Clone`, `Send`), the name of the trait says it all.
        let is_api = written_out.contains(&line) || line.starts_with("impl");
        if is_api
            && !UNPROMISED.iter().any(|name| line.contains(name))
            && listed.insert(line.clone())
        {
            println!("{line}");
        }
    }
    Ok(())
}
