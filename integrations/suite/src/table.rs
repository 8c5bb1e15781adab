//! What was seen of one framework, and the table of all in `docs/frameworks.md`.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use after::Outcome;

use crate::app::Event;

/// When the tasks of a request were handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The body was not asked for yet.
    BeforeHead,
    /// The server had taken some of the body, and not all.
    AfterHead,
    /// It had taken the last chunk.
    AfterBody,
    AfterDisconnect,
    /// Of a body that does not say when it is taken: the client had all of it while the task waited.
    AnswerFirst,
}

impl Moment {
    pub(crate) fn of(events: &[Event]) -> Moment {
        let at = |wanted: Event| events.iter().position(|event| *event == wanted);
        let handed_over = at(Event::HandedOver).expect("something was handed over");
        let is_before = |event: Event| at(event).is_some_and(|at| at < handed_over);
        let streamed = events
            .iter()
            .any(|event| matches!(event, Event::Chunk { .. }));
        if is_before(Event::HungUp) {
            Moment::AfterDisconnect
        } else if is_before(Event::Chunk { last: true }) {
            Moment::AfterBody
        } else if is_before(Event::Chunk { last: false }) {
            Moment::AfterHead
        } else if streamed {
            Moment::BeforeHead
        } else {
            let ran = events
                .iter()
                .position(|event| matches!(event, Event::Ran(_)));
            assert!(
                at(Event::Read) < ran,
                "the answer has waited for a task: {events:?}"
            );
            Moment::AnswerFirst
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::BeforeHead => "before the head",
            Moment::AfterHead => "after the head",
            Moment::AfterBody => "after the body",
            Moment::AfterDisconnect => "after the disconnect",
            Moment::AnswerFirst => "answer first",
        })
    }
}

/// What the table says of one case on one framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell(String);

impl Cell {
    pub(crate) fn new(runs: usize, outcome: Outcome, moment: Moment) -> Cell {
        Cell(format!("{runs} {outcome:?}, {moment}"))
    }

    pub(crate) fn text(text: String) -> Cell {
        Cell(text)
    }

    /// With something to note.
    pub(crate) fn with(self, note: &str) -> Cell {
        Cell(format!("{}; {note}", self.0))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/frameworks.md")
}

const BEGIN: &str = "<!-- observed: begin -->";
const END: &str = "<!-- observed: end -->";

/// Compares what was seen with the document, or with `AFTER_ACCEPT_FRAMEWORKS=1` writes it there.
pub(crate) fn compare(framework: &str, seen: &[(&str, Cell)]) -> Result<(), String> {
    let text = fs::read_to_string(document()).map_err(|error| error.to_string())?;
    let (before, rest) = text
        .split_once(BEGIN)
        .ok_or("docs/frameworks.md has no table")?;
    let (table, after) = rest
        .split_once(END)
        .ok_or("docs/frameworks.md: its table has no end")?;
    let mut table = Table::read(table);
    if env::var_os("AFTER_ACCEPT_FRAMEWORKS").is_some() {
        table.store(framework, seen);
        let text = format!("{before}{BEGIN}\n{}{END}{after}", table.write());
        return fs::write(document(), text).map_err(|error| error.to_string());
    }
    let differences: Vec<String> = seen
        .iter()
        .filter_map(|(case, cell)| {
            let written = table.cell(framework, case).unwrap_or("nothing");
            (written != cell.0).then(|| {
                format!(
                    "  {case}: the table says {written:?}, seen was {:?}",
                    cell.0
                )
            })
        })
        .collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "docs/frameworks.md does not say what {framework} does:\n{}\n\
             if that is right, AFTER_ACCEPT_FRAMEWORKS=1 stores it",
            differences.join("\n")
        )),
    }
}

/// One row a case, one column a framework.
struct Table {
    frameworks: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    fn read(text: &str) -> Table {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| {
                let cells = line.trim().trim_matches('|').split('|');
                cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
            });
        let frameworks = lines
            .next()
            .map(|head| head[1..].to_vec())
            .unwrap_or_default();
        let rows = lines
            .skip(1)
            .map(|row| (row[0].clone(), row[1..].to_vec()))
            .collect();
        Table { frameworks, rows }
    }

    fn column(&self, framework: &str) -> Option<usize> {
        self.frameworks.iter().position(|name| name == framework)
    }

    fn cell(&self, framework: &str, case: &str) -> Option<&str> {
        let column = self.column(framework)?;
        let (_, cells) = self.rows.iter().find(|(name, _)| name == case)?;
        cells.get(column).map(String::as_str)
    }

    fn store(&mut self, framework: &str, seen: &[(&str, Cell)]) {
        let column = self.column(framework).unwrap_or_else(|| {
            self.frameworks.push(framework.to_owned());
            self.frameworks.len() - 1
        });
        for (case, cell) in seen {
            let row = self
                .rows
                .iter()
                .position(|(name, _)| name == case)
                .unwrap_or_else(|| {
                    self.rows.push(((*case).to_owned(), Vec::new()));
                    self.rows.len() - 1
                });
            let cells = &mut self.rows[row].1;
            cells.resize(cells.len().max(column + 1), String::new());
            cells[column] = cell.0.clone();
        }
    }

    fn write(&self) -> String {
        let mut text = format!("| | {} |\n", self.frameworks.join(" | "));
        text += &format!("|{}\n", "---|".repeat(self.frameworks.len() + 1));
        for (case, cells) in &self.rows {
            let mut cells = cells.clone();
            cells.resize(self.frameworks.len(), String::new());
            text += &format!("| {case} | {} |\n", cells.join(" | "));
        }
        text
    }
}
