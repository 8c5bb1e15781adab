//! The documents that name tests name those that exist, so that a renamed or deleted test can't leave a promise without
//! one. A name is written as `file::name`, of `tests/file.rs`, or as `folder::file::name`, of `tests/folder/file.rs`; of an
//! integration as `integrations::folder::file::name`, of `integrations/folder/tests/file.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What stands between two backticks in a line of text.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether this is written as the name of a test is, and not as a path of a crate: the file and the name.
fn as_test(code: &str) -> Option<(&str, &str)> {
    let (file, name) = code.rsplit_once("::")?;
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    // The last two are how the documents say how a test is written.
    let other = ["after", "std", "tokio"].contains(&file.split("::").next()?)
        || ["file::name", "folder::file::name"].contains(&code);
    (file.split("::").all(is_name) && is_name(name) && !other).then_some((file, name))
}

/// The source that `file` names.
fn source(file: &str) -> PathBuf {
    let path = file.replace("::", "/");
    let integration = path
        .strip_prefix("integrations/")
        .and_then(|path| path.split_once('/'));
    root().join(match integration {
        Some((folder, file)) => format!("integrations/{folder}/tests/{file}.rs"),
        None => format!("tests/{path}.rs"),
    })
}

/// Whether there is such a source, and a line of it begins a function of this name.
fn has_function(source: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(source) else {
        return false;
    };
    // In a macro that makes one test for each store `fn` is left out.
    let begins = format!("{name}(");
    text.lines().any(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("async ").unwrap_or(line);
        let named = line.strip_prefix("fn ");
        let in_a_macro = named.is_none() && line.ends_with(") {");
        let line = named.or(in_a_macro.then_some(line));
        line.is_some_and(|line| line.starts_with(&begins))
    })
}

/// Asserts that all tests exist that a document names; gives how many there are.
fn check(name: &str) -> usize {
    let text = document(name);
    let named: BTreeSet<_> = text.lines().flat_map(code).filter_map(as_test).collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| !has_function(&source(file), test))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/{name} names tests that don't exist: {missing:?}"
    );
    named.len()
}

/// Each row of the conformance list that is met names its tests.
#[test]
fn the_tests_of_the_conformance_list_exist() {
    assert!(check("dev/conformance.md") > 30);
}

#[test]
fn the_tests_of_the_reliability_page_exist() {
    assert!(check("dev/reliability.md") > 60);
}

/// Every sentence of the semantics has one row there, and a test in it.
#[test]
fn every_promise_has_a_row_with_a_test() {
    let text = document("dev/reliability.md");
    let sentences = (1..=27).map(|number| number.to_string());
    for sentence in sentences.chain(["9b".into(), "18b".into(), "22b".into()]) {
        let begins = format!("| {sentence} |");
        let rows: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(&begins))
            .collect();
        assert_eq!(rows.len(), 1, "sentence {sentence}");
        assert!(
            code(rows[0]).any(|code| as_test(code).is_some()),
            "sentence {sentence}"
        );
    }
}

/// What the checks above rest on.
#[test]
fn a_name_that_is_no_test_is_seen() {
    assert_eq!(
        as_test("cost::no_such_test"),
        Some(("cost", "no_such_test"))
    );
    assert_eq!(
        as_test("tower::scope::no_such_test"),
        Some(("tower::scope", "no_such_test"))
    );
    assert_eq!(as_test("after::scope"), None);
    assert_eq!(as_test("after::context::set"), None);
    assert_eq!(as_test("context::set()"), None);
    let cost = source("cost");
    assert!(has_function(&cost, "an_idle_scope_allocates_nothing"));
    assert!(!has_function(&cost, "no_such_test"));
    assert!(!has_function(&source("no_such_file"), "no_such_test"));
}
