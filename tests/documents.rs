//! What the documents say of this repository holds: the programs are examples, which are run; the links lead somewhere; the
//! tests that are named exist, so that a renamed or deleted test can't leave a promise without one. A name is written as `file::name`, of `tests/file.rs`, or as `folder::file::name`, of `tests/folder/file.rs`; of an
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

/// The Markdown files of users and maintainers: those of the root, of `docs`, of the examples and of the integrations.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = ["docs", "examples", "integrations"]
        .map(|folder| root().join(folder))
        .to_vec();
    let entries = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    pages.extend(entries(root()).filter(is_page));
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if is_page(&path) {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 20);
    pages
}

/// The blocks of Rust on a page, without their fences.
fn programs(page: &str) -> Vec<String> {
    let mut programs = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```rust") {
            let program = lines.by_ref().take_while(|line| !line.starts_with("```"));
            programs.push(program.map(|line| format!("{line}\n")).collect());
        }
    }
    programs
}

/// What a document shows of an example: without the comment at its head, and without what is there for other systems.
fn shown(example: &str) -> String {
    let path = root().join("examples").join(example).with_extension("rs");
    let text = fs::read_to_string(path).unwrap();
    let begin = text.find("\nuse ").unwrap() + 1;
    text[begin..]
        .replace("#[cfg(unix)]\n", "")
        .replace("\n#[cfg(not(unix))]\nfn main() {}\n", "")
}

/// `tests/shutdown_process.rs` runs it, and ends it by SIGTERM.
#[test]
fn the_readmes_first_program_is_the_example_checkout() {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    assert_eq!(programs(&page)[0], shown("checkout"));
}

/// The same.
#[test]
fn the_program_for_production_is_the_example_production() {
    assert_eq!(programs(&document("production.md"))[0], shown("production"));
}

/// What the page on durable jobs shows is in the example, which the gate runs: each line but the comments, in that order.
#[test]
fn the_programs_about_durable_jobs_are_in_their_example() {
    let source = fs::read_to_string(root().join("examples/durable/src/shop.rs")).unwrap();
    let programs = programs(&document("durable.md"));
    assert_eq!(programs.len(), 2);
    for program in programs {
        let mut rest = source.lines().map(str::trim);
        for line in program.lines().map(str::trim) {
            let is_there = line.starts_with("//") || rest.any(|other| other == line);
            assert!(is_there, "{line}");
        }
    }
}

/// What serves is an example that is run, so that no page shows a server which does not start, or does not stop. The other
/// one is the guide's "before", which loses work as the guide says. What is on the page about serverless platforms is compared
/// with the examples of the integrations by their own tests.
#[test]
fn each_program_that_serves_is_an_example() {
    let mut others = Vec::new();
    let pages = pages().into_iter().filter(|path| {
        let path = path.strip_prefix(root()).unwrap();
        path.starts_with("docs") || path.parent() == Some(Path::new(""))
    });
    for path in pages {
        let page = fs::read_to_string(&path).unwrap();
        for program in programs(&page) {
            let serves = ["axum::serve(", "serve_connection(", "Runtime::new(Adapter"]
                .iter()
                .any(|call| program.contains(call));
            // The end of a `main` that goes on before.
            let is_whole = program.contains("async fn main()");
            let is_example = ["checkout", "production"]
                .iter()
                .any(|example| program == shown(example));
            if serves && is_whole && !is_example {
                others.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    // Those of `how-to.md` are doc tests that serve, ask themselves, and end.
    others.retain(|page| page != "serverless.md" && page != "how-to.md");
    assert_eq!(others, ["from-spawn.md"]);
}

/// Who looks for a page, or for an example, finds it.
#[test]
fn each_page_and_each_example_is_in_its_index() {
    let mut missing = Vec::new();
    for (folder, index) in [
        ("docs", "docs/README.md"),
        ("docs/dev", "docs/README.md"),
        ("examples", "examples/README.md"),
    ] {
        let index = root().join(index);
        let page = fs::read_to_string(&index).unwrap();
        let linked: Vec<_> = links(&page)
            .iter()
            .map(|link| index.parent().unwrap().join(link))
            .collect();
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let is_listed = path.is_dir() && folder == "examples"
                || path
                    .extension()
                    .is_some_and(|extension| extension == "md" || extension == "rs");
            // A folder by any file in it.
            if is_listed && path != index && !linked.iter().any(|link| link.starts_with(&path)) {
                missing.push(path);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// A merge that was not finished.
#[test]
fn no_page_has_the_marks_of_a_conflict() {
    let marks = ["<<<<<<< ", ">>>>>>> "];
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        let marked = page
            .lines()
            .find(|line| marks.iter().any(|mark| line.starts_with(mark)));
        assert_eq!(marked, None, "{}", path.display());
    }
}

/// Cargo puts the examples of all packages of the workspace into one folder: of two with one name a test runs either.
#[test]
fn no_two_examples_have_one_name() {
    let mut folders = vec![root().join("examples")];
    for entry in fs::read_dir(root().join("integrations")).unwrap() {
        folders.push(entry.unwrap().path().join("examples"));
    }
    let mut names = BTreeSet::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_example = path.extension().is_some_and(|extension| extension == "rs");
            let name = path.file_stem().unwrap().to_owned();
            assert!(!is_example || names.insert(name), "{}", path.display());
        }
    }
    assert!(names.len() > 20);
}

/// A reader has five minutes.
#[test]
fn the_readme_has_at_most_200_lines() {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(page.lines().count() <= 200);
}

/// A window of 1300 pixels shows about so many columns.
#[test]
fn code_on_pages_for_users_is_at_most_88_columns_wide() {
    let mut wide = Vec::new();
    let users = pages().into_iter().filter(|path| {
        let path = path.strip_prefix(root()).unwrap();
        path == Path::new("README.md") || path.parent() == Some(Path::new("docs"))
    });
    for path in users {
        let page = fs::read_to_string(&path).unwrap();
        for line in programs(&page).iter().flat_map(|program| program.lines()) {
            if line.chars().count() > 88 {
                wide.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

/// The same for what docs.rs shows: the blocks of code in the documentation of items and modules, in whichever language. Lines
/// that rustdoc hides may be wider.
#[test]
fn code_in_the_documentation_of_the_source_is_at_most_88_columns_wide() {
    let mut wide = Vec::new();
    let mut count = 0;
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let is_page = path.extension().is_some_and(|extension| extension == "md");
            let text = fs::read_to_string(&path).unwrap();
            let mut in_code = false;
            for (index, line) in text.lines().enumerate() {
                let line = line.trim_start();
                let doc = ["///", "//!"]
                    .iter()
                    .find_map(|comment| line.strip_prefix(comment));
                let line = match doc {
                    Some(doc) => doc.strip_prefix(' ').unwrap_or(doc),
                    None if is_page => line,
                    None => {
                        in_code = false;
                        continue;
                    }
                };
                if line.trim_start().starts_with("```") {
                    in_code = !in_code;
                    continue;
                }
                let is_hidden = line.starts_with("# ");
                count += usize::from(in_code);
                if in_code && !is_hidden && line.chars().count() > 88 {
                    wide.push(format!("{}:{}: {line}", path.display(), index + 1));
                }
            }
        }
    }
    assert!(wide.is_empty(), "{wide:#?}");
    assert!(count > 1_000, "{count}");
}

/// What docs.rs shows first: the program for axum, and not much more than a screen can be asked to hold.
#[test]
fn the_crates_documentation_has_at_most_250_lines_and_begins_with_axum() {
    let source = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let program = fs::read_to_string(root().join("src/guide/first_axum.md")).unwrap();
    let documentation = source
        .lines()
        .take_while(|line| !line.starts_with("#![forbid"));
    let lines = documentation.count() + program.lines().count();
    assert!(lines <= 250, "{lines}");
    let first = source.lines().find(|line| line.contains("include_str!"));
    assert_eq!(
        first,
        Some(r#"#![cfg_attr(feature = "tower", doc = include_str!("guide/first_axum.md"))]"#)
    );
}

/// The relative links of a page: what stands between `](` and `)`, and in `src` and `srcset`.
fn links(page: &str) -> Vec<&str> {
    let mut links = Vec::new();
    for (open, close) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')] {
        let found = page.split(open).skip(1);
        links.extend(found.filter_map(|rest| Some(rest.split_once(close)?.0)));
    }
    // In brackets before a parenthesis, but code.
    links.retain(|link| !link.contains("://") && !link.contains(' '));
    links
}

/// The anchors of a page's headings, as forges make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let line = line.trim_start_matches('#').trim().to_lowercase();
            let kept = line
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn relative_links_lead_to_a_file_and_to_a_heading() {
    let mut dead = Vec::new();
    let mut count = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for link in links(&page) {
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let leads = target.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !leads {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
    assert!(count > 100, "{count}");
}

/// The steps of the gate, as `.ci/run --list` prints them.
fn steps() -> BTreeSet<String> {
    let gate = fs::read_to_string(root().join(".ci/run")).unwrap();
    let (_, list) = gate.split_once("\nsteps=(").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    let steps: BTreeSet<_> = list.split_whitespace().map(str::to_owned).collect();
    for step in &steps {
        assert!(gate.contains(&format!("\n{step}() {{\n")), "{step}");
    }
    assert!(steps.len() > 20);
    steps
}

/// Each step of the gate is in one job of the workflow, and nothing else is: a step that is renamed, or that comes, is not
/// forgotten there. (What a job calls are the words of its row in the matrix.)
#[test]
fn the_workflow_has_each_step_of_the_gate_once() {
    let workflow = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    assert!(workflow.contains("run: .ci/run ${{ matrix.steps }}\n"));
    let (_, rows) = workflow.split_once("        steps:\n").unwrap();
    let rows = rows
        .lines()
        .map_while(|line| line.strip_prefix("          - "));
    let named: Vec<_> = rows.flat_map(str::split_whitespace).collect();
    let once: BTreeSet<_> = named.iter().map(|step| step.to_string()).collect();
    assert_eq!(once, steps());
    assert_eq!(once.len(), named.len());
}

/// So do the scripts that a job calls by themselves, and those that pages name.
#[test]
fn the_scripts_that_workflow_and_pages_call_exist() {
    let mut texts = vec![root().join(".github/workflows/ci.yml")];
    texts.extend(pages());
    let mut count = 0;
    for path in texts {
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !(c.is_alphanumeric() || "/._-".contains(c)));
        let scripts = words
            .filter(|word| word.starts_with(".ci/") || word.contains('/') && word.ends_with(".sh"));
        for script in scripts {
            count += 1;
            let beside = path.parent().unwrap().join(script);
            let exists = root().join(script).is_file() || beside.is_file();
            assert!(exists, "{}: {script}", path.display());
        }
    }
    assert!(count > 20, "{count}");
}

/// The compiler that the stored files are of: in the gate, in the workflow and for contributors.
#[test]
fn the_version_of_the_compiler_is_the_same_everywhere() {
    let script = fs::read_to_string(root().join(".ci/compiler")).unwrap();
    let (_, version) = script.split_once("\nstored=").unwrap();
    let version = version.lines().next().unwrap();
    let workflow = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    for (text, wanted) in [
        (&workflow, format!("  RUSTUP_TOOLCHAIN: {version}\n")),
        (&workflow, format!("image: rust:{version}-")),
        (&contributing, format!("**{version}**")),
    ] {
        assert!(text.contains(&wanted), "{wanted}");
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
