//! Names and files: what is there now, and what a power cut would leave.
//!
//! Keeps true: every number in a directory's live or durable names is a node; a node without a name
//! in either goes when nobody has it open. Files and directories are kept apart from their names.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::Content;
use crate::dice::Dice;
use crate::power::{Cut, CutReport};

/// Number of a node; the root is [`ROOT`].
pub(crate) type Number = u64;

pub(crate) const ROOT: Number = 1;

/// Why a change of names is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Absent,
    Exists,
    NotEmpty,
    NotADirectory,
    IsADirectory,
    NoSpace,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) mode: u16,
    pub(crate) kind: Kind,
    /// For messages and faults; as of the last naming.
    pub(crate) path: String,
    opened: u64,
}

#[derive(Debug)]
pub(crate) enum Kind {
    File(Content),
    Directory(Directory),
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    names: BTreeMap<String, Number>,
    durable: BTreeMap<String, Number>,
    pending: Vec<Naming>,
}

#[derive(Clone, Debug)]
enum Naming {
    Put(String, Number),
    Remove(String),
    Rename(String, String),
}

impl Directory {
    fn change(&mut self, naming: Naming) {
        apply(&mut self.names, &naming);
        self.pending.push(naming);
    }

    fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.names);
    }
}

fn apply(names: &mut BTreeMap<String, Number>, naming: &Naming) {
    match naming {
        Naming::Put(name, number) => {
            names.insert(name.clone(), *number);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
        Naming::Rename(from, to) => {
            if let Some(number) = names.remove(from) {
                names.insert(to.clone(), number);
            }
        }
    }
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<Number, Node>,
    next: Number,
    /// Bytes that files may take together.
    pub(crate) budget: u64,
}

impl Tree {
    pub(crate) fn new(budget: u64) -> Self {
        let kind = Kind::Directory(Directory::default());
        let root = Node { mode: 0o700, kind, path: String::new(), opened: 0 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, budget }
    }

    pub(crate) fn node(&self, number: Number) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub(crate) fn set_mode(&mut self, number: Number, mode: u16) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.mode = mode;
        }
    }

    pub(crate) fn content(&mut self, number: Number) -> Result<&mut Content, Refusal> {
        match self.nodes.get_mut(&number) {
            Some(Node { kind: Kind::File(content), .. }) => Ok(content),
            Some(_) => Err(Refusal::IsADirectory),
            None => Err(Refusal::Absent),
        }
    }

    fn directory(&mut self, number: Number) -> Result<&mut Directory, Refusal> {
        match self.nodes.get_mut(&number) {
            Some(Node { kind: Kind::Directory(directory), .. }) => Ok(directory),
            Some(_) => Err(Refusal::NotADirectory),
            None => Err(Refusal::Absent),
        }
    }

    pub(crate) fn lookup(&mut self, parent: Number, name: &str) -> Result<Number, Refusal> {
        self.directory(parent)?.names.get(name).copied().ok_or(Refusal::Absent)
    }

    /// Names of a directory with their nodes.
    pub(crate) fn list(&mut self, number: Number) -> Result<Vec<(String, Number)>, Refusal> {
        let names = &self.directory(number)?.names;
        Ok(names.iter().map(|(name, number)| (name.clone(), *number)).collect())
    }

    pub(crate) fn create(
        &mut self,
        parent: Number,
        name: &str,
        mode: u16,
        kind: Kind,
    ) -> Result<Number, Refusal> {
        let number = self.next;
        let path = format!("{}/{name}", self.nodes.get(&parent).ok_or(Refusal::Absent)?.path);
        let directory = self.directory(parent)?;
        if directory.names.contains_key(name) {
            return Err(Refusal::Exists);
        }
        directory.change(Naming::Put(name.to_owned(), number));
        self.next += 1;
        self.nodes.insert(number, Node { mode, kind, path, opened: 0 });
        Ok(number)
    }

    pub(crate) fn remove(&mut self, parent: Number, name: &str) -> Result<(), Refusal> {
        let number = self.lookup(parent, name)?;
        if let Ok(directory) = self.directory(number)
            && !directory.names.is_empty()
        {
            return Err(Refusal::NotEmpty);
        }
        self.directory(parent)?.change(Naming::Remove(name.to_owned()));
        self.collect();
        Ok(())
    }

    /// Renames within one directory; other renamings nobody here needs.
    pub(crate) fn rename(&mut self, parent: Number, from: &str, to: &str) -> Result<(), Refusal> {
        let number = self.lookup(parent, from)?;
        self.directory(parent)?.change(Naming::Rename(from.to_owned(), to.to_owned()));
        let path = format!("{}/{to}", self.nodes[&parent].path);
        if let Some(node) = self.nodes.get_mut(&number) {
            node.path = path;
        }
        self.collect();
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self, number: Number) -> Result<(), Refusal> {
        self.directory(number)?.sync();
        self.collect();
        Ok(())
    }

    pub(crate) fn opened(&mut self, number: Number) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.opened += 1;
        }
    }

    pub(crate) fn released(&mut self, number: Number) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.opened = node.opened.saturating_sub(1);
            self.collect();
        }
    }

    /// Bytes that files take: those that have a name now, and those that are open.
    pub(crate) fn taken(&self) -> u64 {
        let mut named: BTreeSet<Number> = BTreeSet::new();
        for node in self.nodes.values() {
            if let Kind::Directory(directory) = &node.kind {
                named.extend(directory.names.values());
            }
        }
        let files = self.nodes.iter().filter_map(|(number, node)| match &node.kind {
            Kind::File(content) if node.opened > 0 || named.contains(number) => {
                Some(content.taken() as u64)
            }
            _ => None,
        });
        files.sum()
    }

    /// Refuses a size that the budget does not allow.
    pub(crate) fn check_room(&mut self, number: Number, bytes: u64) -> Result<(), Refusal> {
        let taken = self.content(number)?.taken() as u64;
        let more = bytes.saturating_sub(taken);
        if more > 0 && self.taken() + more > self.budget {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    /// Forgets nodes without a name that nobody has open.
    fn collect(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Kind::Directory(directory) = &node.kind {
                named.extend(directory.names.values().chain(directory.durable.values()));
                // A name may come and go before the directory is synced.
                named.extend(directory.pending.iter().filter_map(|naming| match naming {
                    Naming::Put(_, number) => Some(number),
                    _ => None,
                }));
            }
        }
        self.nodes.retain(|number, node| node.opened > 0 || named.contains(number));
    }

    /// What is left after a power cut.
    pub(crate) fn cut(&mut self, cut: Cut) -> CutReport {
        let mut dice = Dice::new(if let Cut::Seeded(seed) = cut { seed } else { 0 });
        let mut report = CutReport::default();
        for node in self.nodes.values_mut() {
            node.opened = 0;
            match &mut node.kind {
                Kind::File(content) => content.cut(cut, &mut dice, &mut report),
                Kind::Directory(directory) => {
                    let pending = std::mem::take(&mut directory.pending);
                    let kept = match cut {
                        Cut::DropAll => 0,
                        Cut::KeepAll => pending.len(),
                        Cut::Seeded(_) => dice.cut(pending.len()),
                    };
                    pending[..kept].iter().for_each(|it| apply(&mut directory.durable, it));
                    directory.names.clone_from(&directory.durable);
                    report.pending_names += pending.len() as u64;
                    report.kept_names += kept as u64;
                }
            }
        }
        self.collect();
        self.name_paths();
        report
    }

    /// Paths anew from the names.
    fn name_paths(&mut self) {
        let mut open = vec![(ROOT, String::new())];
        while let Some((number, path)) = open.pop() {
            if let Ok(names) = self.list(number) {
                open.extend(names.into_iter().map(|(name, at)| (at, format!("{path}/{name}"))));
            }
            if let Some(node) = self.nodes.get_mut(&number) {
                node.path = path;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Kind {
        Kind::File(Content::default())
    }

    fn names(tree: &mut Tree) -> Vec<String> {
        tree.list(ROOT).expect("the root").into_iter().map(|(name, _)| name).collect()
    }

    /// Shows that a synced file without a synced directory has no name after a cut, and that the
    /// name of a file that a renaming took away is back.
    #[test]
    fn names_need_a_sync_of_their_directory() {
        let mut tree = Tree::new(1 << 20);
        let old = tree.create(ROOT, "a", 0o600, file()).expect("made");
        tree.sync_directory(ROOT).expect("synced");
        tree.rename(ROOT, "a", "b").expect("renamed");
        let new = tree.create(ROOT, "c", 0o600, file()).expect("made");
        let content = tree.content(new).expect("a file");
        content.write(0, b"synced");
        content.sync(content.mark());
        let report = tree.cut(Cut::DropAll);
        assert_eq!((report.pending_names, report.kept_names), (2, 0));
        assert_eq!(names(&mut tree), ["a"]);
        assert_eq!(tree.lookup(ROOT, "a"), Ok(old));
        assert!(tree.node(new).is_none());
    }

    /// Shows that a renaming is whole or not at all whatever the seed, and that both happen.
    #[test]
    fn a_renaming_is_whole_or_not_at_all() {
        let mut seen = BTreeSet::new();
        for seed in 0..40 {
            let mut tree = Tree::new(1 << 20);
            tree.create(ROOT, "a", 0o600, file()).expect("made");
            tree.sync_directory(ROOT).expect("synced");
            tree.rename(ROOT, "a", "b").expect("renamed");
            tree.cut(Cut::Seeded(seed));
            seen.insert(names(&mut tree).join(","));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    /// Shows that the budget refuses growth, and that a removed file gives its room back.
    #[test]
    fn the_budget_is_kept_and_given_back() {
        let mut tree = Tree::new(100);
        let first = tree.create(ROOT, "a", 0o600, file()).expect("made");
        assert_eq!(tree.check_room(first, 101), Err(Refusal::NoSpace));
        assert_eq!(tree.check_room(first, 100), Ok(()));
        tree.content(first).expect("a file").resize(100);
        tree.sync_directory(ROOT).expect("synced");
        let second = tree.create(ROOT, "b", 0o600, file()).expect("made");
        assert_eq!(tree.check_room(second, 1), Err(Refusal::NoSpace));
        tree.remove(ROOT, "a").expect("removed");
        tree.sync_directory(ROOT).expect("synced");
        assert_eq!(tree.check_room(second, 100), Ok(()));
    }
}
