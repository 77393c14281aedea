//! Fails if files of `src` import each other in a circle. Run it with `scripts/check-imports`.
//!
//! A file imports another where a `use` or a path in its code leads there, through re-exports. Declaring a
//! module or re-exporting from it is no import, and tests may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, process::ExitCode};

type Module = Vec<String>;

#[derive(Default)]
struct File {
    imports: Vec<Module>,
    /// Names that others find here, and where they come from.
    exports: BTreeMap<String, Module>,
}

fn main() -> ExitCode {
    let mut files = BTreeMap::new();
    collect(Path::new("src"), &mut Vec::new(), &mut files);
    let graph: BTreeMap<&Module, BTreeSet<Module>> = files
        .iter()
        .map(|(module, file)| {
            let found = file
                .imports
                .iter()
                .map(|path| resolve(&files, module, path, 0));
            (module, found.filter(|found| found != module).collect())
        })
        .collect();
    let mut done = BTreeSet::new();
    for module in files.keys() {
        if let Some(circle) = circle_from(&graph, module, &mut Vec::new(), &mut done) {
            let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            eprintln!(
                "these files import each other in a circle:\n  {}",
                names.join("\n  ")
            );
            return ExitCode::FAILURE;
        }
    }
    println!("{} files, and no circle of imports", files.len());
    ExitCode::SUCCESS
}

fn collect(folder: &Path, module: &mut Module, files: &mut BTreeMap<Module, File>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    for path in entries {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name")
            .to_owned();
        let is_own = matches!(stem.as_str(), "mod" | "lib");
        if !is_own {
            module.push(stem);
        }
        if path.is_dir() {
            collect(&path, module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(
                module.clone(),
                read(&fs::read_to_string(&path).expect("text")),
            );
        }
        if !is_own {
            module.pop();
        }
    }
}

fn read(text: &str) -> File {
    let mut file = File::default();
    let code = without_tests_and_comments(text);
    for statement in code.split_inclusive([';', '{', '}']) {
        // A `use` may have braces of its own: it is found by its first word, and read to its semicolon.
        let begin = statement.as_ptr() as usize - code.as_ptr() as usize;
        let words = statement.trim_start();
        let (is_public, tree) = match words
            .strip_prefix("pub")
            .and_then(|rest| rest.split_once("use "))
        {
            Some((visibility, _))
                if visibility.trim().is_empty() || visibility.trim().starts_with('(') =>
            {
                (true, "use ")
            }
            _ if words.starts_with("use ") => (false, "use "),
            _ => continue,
        };
        let rest = &code[begin..];
        let from = rest.find(tree).expect("it was found") + tree.len();
        let end = rest.find(';').expect("a `use` ends");
        for path in expand(&rest[from..end], &[]) {
            match (is_public, path.last()) {
                (true, Some(name)) => drop(file.exports.insert(name.clone(), path)),
                _ => file.imports.push(path),
            }
        }
    }
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back().unwrap_or(' ');
            let line = code[..at].rsplit(['\n', ';']).next().unwrap_or_default();
            if before.is_alphanumeric()
                || matches!(before, '_' | ':')
                || line.contains("use ")
                || line.ends_with("(in ")
            {
                continue;
            }
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            let path = &code[at..at + code[at..].find(|c| !is_path(c)).unwrap_or(0)];
            file.imports.push(
                path.split("::")
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            );
        }
    }
    file
}

fn without_tests_and_comments(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test") || line.starts_with("#[cfg(all(test") {
            match lines.next() {
                // The tests stand at the end of a file.
                Some(next) if next.contains("mod tests {") => break,
                _ => continue,
            }
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String]) -> Vec<Module> {
    let tree = tree.trim();
    let names = |path: &str| -> Module {
        path.split("::")
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    let Some((path, branches)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![[prefix, &names(path)].concat()];
    };
    let prefix = [prefix, &names(path)].concat();
    let branches = branches.strip_suffix('}').unwrap_or(branches);
    let mut depth = 0;
    let split = branches.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    split
        .filter(|branch| !branch.trim().is_empty())
        .flat_map(|branch| expand(branch, &prefix))
        .collect()
}

/// The file that has what this path names.
fn resolve(files: &BTreeMap<Module, File>, from: &Module, path: &[String], depth: usize) -> Module {
    let mut module = from.clone();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("crate") => (module, rest) = (Vec::new(), &rest[1..]),
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        // Another crate.
        _ => return from.clone(),
    }
    while rest.first().is_some_and(|name| name == "super") {
        module.pop();
        rest = &rest[1..];
    }
    while let Some(name) = rest.first() {
        let child = [module.clone(), vec![name.clone()]].concat();
        if !files.contains_key(&child) {
            break;
        }
        (module, rest) = (child, &rest[1..]);
    }
    let export = rest
        .first()
        .and_then(|name| files.get(&module)?.exports.get(name));
    match export {
        Some(path) if depth < 9 => resolve(files, &module, &[path, &rest[1..]].concat(), depth + 1),
        _ => module,
    }
}

fn circle_from<'a>(
    graph: &'a BTreeMap<&Module, BTreeSet<Module>>,
    module: &'a Module,
    way: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
) -> Option<Vec<Module>> {
    if let Some(at) = way.iter().position(|passed| *passed == module) {
        return Some(way[at..].iter().map(|module| (*module).clone()).collect());
    }
    if !done.contains(module) {
        way.push(module);
        for next in graph.get(module).into_iter().flatten() {
            if let Some(circle) = circle_from(graph, next, way, done) {
                return Some(circle);
            }
        }
        way.pop();
        done.insert(module);
    }
    None
}
