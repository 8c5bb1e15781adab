//! The rooms of `src`, each a folder or a file beside `lib.rs`, have an order: a room uses those below it, and none above. So
//! whoever reads one needs to know only those below it.

use std::{fs, path::Path};

/// From the lowest to the highest. Of those in one row none uses another. ARCHITECTURE.md says what each is.
const ROOMS: [&[&str]; 9] = [
    &["sync", "platform", "pool"],
    &["report"],
    &["limit"],
    &["task"],
    &["account"],
    &["runner"],
    &["batch"],
    &["spawner", "scope"],
    &["tower", "testing", "metrics", "tracing", "guide"],
];

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&room))
}

/// What comes directly after each `crate::` of some code, braces included.
fn names(code: &str) -> Vec<&str> {
    let name = |text| str::split(text, |c: char| c != '_' && !c.is_alphanumeric()).next();
    let mut names = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let path = &code[at + found.len()..];
        let mut depth = 0;
        for (at, c) in path.char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            match c {
                '{' | ',' if depth == 1 => names.extend(name(path[at + 1..].trim_start())),
                _ if depth == 0 => {
                    names.extend(name(path));
                    break;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What is wrong with a file of the source, in words.
fn faults(file: &str, source: &str) -> Vec<String> {
    let room = file.split(['/', '.']).next().unwrap();
    let Some(own) = rank(room) else {
        return vec![format!(
            "src/{file} is in no room: give it one, or name a new one in tests/rooms.rs"
        )];
    };
    let lines = source.lines().map(|line| line.split("//").next().unwrap());
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut faults = Vec::new();
    for name in names(&code).into_iter().filter(|name| *name != room) {
        match rank(name) {
            Some(used) if used < own => {}
            Some(_) => faults.push(format!(
                "src/{file} uses src/{name}, and `{name}` is not below `{room}`: what both need belongs further down"
            )),
            // What is above all others may use what the users have.
            None if own == ROOMS.len() - 1 => {}
            None => faults.push(format!("src/{file} names `crate::{name}`: name the room that it is in")),
        }
    }
    if code.contains("super::super") {
        faults.push(format!(
            "src/{file} leaves its room by `super::super`: name the room with `crate::`"
        ));
    }
    faults
}

fn look(folder: &Path, name: &str, all: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{name}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            look(&path, &format!("{name}/"), all);
        } else if name != "lib.rs" && name.ends_with(".rs") {
            all.extend(faults(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn no_room_of_the_source_uses_one_above_it() {
    let mut all = Vec::new();
    look(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut all,
    );
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// ARCHITECTURE.md has the same rooms in the same order, the highest first.
#[test]
fn the_architecture_names_the_same_rooms() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md"));
    let text = text.unwrap();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let rows: Vec<String> = rows.map(|row| row.replace('`', "")).collect();
    let rooms: Vec<String> = ROOMS.iter().rev().map(|row| row.join(", ")).collect();
    assert_eq!(rows, rooms);
}

/// What the checks above rest on.
#[test]
fn an_arrow_that_climbs_is_seen() {
    assert_eq!(
        names("use crate::{a::{self, b}, c}; crate::d::e()"),
        ["a", "c", "d"]
    );
    for (file, source) in [
        ("task/node.rs", "use crate::runner::Registry;"),
        (
            "task/node.rs",
            "use crate::{\n    report,\n    runner::{Core, Registry},\n};",
        ),
        ("scope/open.rs", "use crate::spawner::Spawner;"),
        ("batch/turn.rs", "use crate::Batch;"),
        ("batch/turn.rs", "use super::super::scope;"),
        ("turn.rs", ""),
    ] {
        assert_eq!(faults(file, source).len(), 1, "{file}: {source}");
    }
    for (file, source) in [
        (
            "batch/turn.rs",
            "/// See [`Scope`](crate::Scope).\nuse crate::{report, runner};",
        ),
        ("tower/body.rs", "use crate::{OpenScope, Outcome};"),
    ] {
        assert!(faults(file, source).is_empty(), "{file}: {source}");
    }
}
