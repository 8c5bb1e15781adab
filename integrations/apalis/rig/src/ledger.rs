use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
};

use crate::Error;

/// Lines appended by all processes, one `write` each: what was written stays, whoever is killed.
pub(crate) struct Ledger(File);

impl Ledger {
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Ledger(
            OpenOptions::new().append(true).create(true).open(path)?,
        ))
    }

    pub(crate) fn write(&self, what: &str, order: u64, id: &str) {
        let line = format!("{what} {order} {id}\n");
        (&self.0)
            .write_all(line.as_bytes())
            .expect("the ledger is on a disk with room");
    }
}

/// What the ledger says, read at the end.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) ids: HashMap<String, u64>,
    pub(crate) committed: HashSet<u64>,
    pub(crate) rolled_back: HashSet<u64>,
    pub(crate) done: HashMap<u64, u32>,
}

impl Entries {
    pub(crate) fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let mut entries = Entries::default();
        for line in std::fs::read_to_string(path)?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, order, id] = words.as_slice() else {
                return Err(format!("not a line of the ledger: {line:?}").into());
            };
            let order: u64 = order.parse()?;
            match *what {
                // Before anything else, so that whoever dies is known.
                "intends" => {
                    entries.ids.insert((*id).to_owned(), order);
                }
                "committed" => {
                    entries.committed.insert(order);
                }
                "rolls-back" => {
                    entries.rolled_back.insert(order);
                }
                "done" => *entries.done.entry(order).or_default() += 1,
                _ => return Err(format!("not a line of the ledger: {line:?}").into()),
            }
        }
        Ok(entries)
    }
}
