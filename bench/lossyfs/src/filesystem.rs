//! The file system as FUSE asks for it.
//!
//! Names and sizes change at once; reads, writes and syncs go to the disk's thread, which answers
//! them. A sync covers what had been written when it arrived.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    WriteFlags,
};

use crate::content::Content;
use crate::disk::{Job, Shared, answer, errno, index};
use crate::pace::Stall;
use crate::tree::{Directory, Kind, Number, Tree};

/// The kernel remembers nothing: after a power cut it would remember what is gone.
const REMEMBERED: Duration = Duration::ZERO;

/// `fallocate` that leaves the size alone.
const KEEP_SIZE: i32 = 1;

/// The file system of one mount.
pub(crate) struct LossyFilesystem(pub(crate) Arc<Shared>);

fn text(name: &OsStr) -> Result<&str, Errno> {
    name.to_str().ok_or(Errno::EINVAL)
}

pub(crate) fn attributes(tree: &Tree, number: Number) -> Result<FileAttr, Errno> {
    let node = tree.node(number).ok_or(Errno::ENOENT)?;
    let (kind, size) = match &node.kind {
        Kind::File(content) => (FileType::RegularFile, content.bytes() as u64),
        Kind::Directory(_) => (FileType::Directory, 0),
    };
    let time = SystemTime::UNIX_EPOCH;
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

/// Permission bits of a mode as the kernel gives it.
fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("12 bits")
}

impl Filesystem for LossyFilesystem {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Else the kernel carries out a ring's direct transfer in the thread that submits it, which
        // no file system on a disk does. An old kernel that lacks it is slower and right.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.0.state();
        let found = text(name).and_then(|name| {
            let number = state.tree.lookup(parent.0, name).map_err(errno)?;
            attributes(&state.tree, number)
        });
        entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.0.state().tree, ino.0) {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _accessed: Option<fuser::TimeOrNow>,
        _modified: Option<fuser::TimeOrNow>,
        _changed: Option<SystemTime>,
        _: Option<FileHandle>,
        _created: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.0.change(ino.0, "", |tree| {
            if let Some(size) = size {
                tree.check_room(ino.0, size)?;
                tree.content(ino.0)?.resize(index(size));
            }
            if let Some(mode) = mode {
                tree.set_mode(ino.0, permissions(mode));
            }
            Ok(ino.0)
        });
        match changed {
            Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let kind = Kind::Directory(Directory::default());
        let made = text(name).and_then(|name| {
            self.0
                .change(parent.0, name, |tree| tree.create(parent.0, name, permissions(mode), kind))
        });
        entry(reply, made);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let kind = Kind::File(Content::default());
        let made = text(name).and_then(|name| {
            self.0.change(parent.0, name, |tree| {
                let number = tree.create(parent.0, name, permissions(mode), kind)?;
                tree.opened(number);
                Ok(number)
            })
        });
        match made {
            Ok(attributes) => {
                reply.created(&REMEMBERED, &attributes, Generation(0), FileHandle(0), OPENED);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = text(name).and_then(|name| {
            self.0.change(parent.0, name, |tree| tree.remove(parent.0, name).map(|()| parent.0))
        });
        answer(reply, removed.map(|_| ()));
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != new_parent || !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let renamed = text(name).and_then(|from| {
            let to = text(new_name)?;
            self.0.change(parent.0, from, |tree| tree.rename(parent.0, from, to).map(|()| parent.0))
        });
        answer(reply, renamed.map(|_| ()));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.state().tree.opened(ino.0);
        reply.opened(FileHandle(0), OPENED);
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.state().tree.released(ino.0);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let job = Job::Read { number: ino.0, offset, length: size, reply };
        self.0.pace.add(job, Stall::Holds);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let job = Job::Write { number: ino.0, offset, bytes: data.to_vec(), reply };
        self.0.pace.add(job, Stall::Holds);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        let mark = self.0.state().tree.content(ino.0).map(|content| content.mark());
        match mark {
            Ok(mark) => {
                self.0.pace.add(Job::Sync { number: ino.0, mark, reply }, Stall::Passes);
            }
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        self.0.pace.add(Job::SyncDirectory { number: ino.0, reply }, Stall::Passes);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.0.state();
        let names = match state.tree.list(ino.0) {
            Ok(names) => names,
            Err(refusal) => return reply.error(errno(refusal)),
        };
        for (place, (name, number)) in (1..).zip(names).skip(index(offset)) {
            let kind = match state.tree.node(number).map(|node| &node.kind) {
                Some(Kind::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(number), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.0.state();
        let blocks = state.tree.budget / 4096;
        let free = state.tree.budget.saturating_sub(state.tree.taken()) / 4096;
        reply.statfs(blocks, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let allocated = self.0.change(ino.0, "", |tree| {
            let end = offset + length;
            tree.check_room(ino.0, end)?;
            let content = tree.content(ino.0)?;
            if mode == 0 && index(end) > content.bytes() {
                content.resize(index(end));
            }
            Ok(ino.0)
        });
        answer(reply, allocated.map(|_| ()));
    }
}

/// Every transfer comes here as it is; several at a time on one file.
const OPENED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

fn entry(reply: ReplyEntry, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}
