//! The documents that name tests name those that exist, so that a renamed or deleted test can't leave a promise without
//! one. A name is written as `file::name`, of `tests/file.rs`, or of a file in the folder `tests/file`.

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

/// Whether this is written as the name of a test is, and not as a path of a crate.
fn as_test(code: &str) -> Option<(&str, &str)> {
    let (file, name) = code.split_once("::")?;
    // In a folder the file that the test is in may stand between the two.
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    // The last is how the documents say how a test is written.
    let other = ["after", "std", "tokio"].contains(&file) || code == "file::name";
    (is_name(file) && is_name(name) && !other).then_some((file, name))
}

/// The sources that `file` names.
fn sources(file: &str) -> Vec<PathBuf> {
    let tests = root().join("tests");
    let mut sources = vec![tests.join(file).with_extension("rs")];
    if let Ok(folder) = fs::read_dir(tests.join(file)) {
        sources.extend(folder.map(|entry| entry.unwrap().path()));
    }
    sources.retain(|source| source.is_file());
    sources
}

/// Whether a line of the source begins a function of this name.
fn has_function(source: &Path, name: &str) -> bool {
    let text = fs::read_to_string(source).unwrap();
    let begins = format!("fn {name}(");
    text.lines().any(|line| {
        let line = line.trim_start();
        line.strip_prefix("async ")
            .unwrap_or(line)
            .starts_with(&begins)
    })
}

/// Asserts that all tests exist that a document names; gives how many there are.
fn check(name: &str) -> usize {
    let text = document(name);
    let named: BTreeSet<_> = text.lines().flat_map(code).filter_map(as_test).collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| {
            !sources(file)
                .iter()
                .any(|source| has_function(source, test))
        })
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
    assert!(check("conformance.md") > 30);
}

#[test]
fn the_tests_of_the_reliability_page_exist() {
    assert!(check("reliability.md") > 60);
}

/// Every sentence of the semantics has one row there, and a test in it.
#[test]
fn every_promise_has_a_row_with_a_test() {
    let text = document("reliability.md");
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
        as_test("scope::no_such_test"),
        Some(("scope", "no_such_test"))
    );
    assert_eq!(as_test("after::scope"), None);
    assert_eq!(as_test("context::set()"), None);
    let scope = &sources("scope")[..];
    assert_eq!(scope.len(), 1);
    assert!(has_function(
        &scope[0],
        "failed_if_decides_what_a_failure_is"
    ));
    assert!(!has_function(&scope[0], "no_such_test"));
    assert!(sources("no_such_file").is_empty());
}
