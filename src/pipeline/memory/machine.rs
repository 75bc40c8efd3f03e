//! What memory there is: of the cgroup that the process runs in, else of the machine.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::text::quantity;

/// Limits above this are how the kernel writes that there is none.
const NONE: u64 = 1 << 60;

/// How much memory there is for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Available {
    /// In bytes.
    pub bytes: u64,
    /// Whether a cgroup says so: a container, a service; else it is what the machine has.
    pub of_cgroup: bool,
}

impl fmt::Display for Available {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.of_cgroup { "limit of the cgroup" } else { "memory of the machine" };
        write!(f, "{} ({what})", quantity(self.bytes as f64, "By"))
    }
}

/// Where the kernel tells about itself.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Machine {
    /// How much memory there is; `None` where that is not known (elsewhere than on Linux).
    #[must_use]
    pub fn room(&self) -> Option<Available> {
        let machine = self.read("proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:"));
        let limits = self.cgroup_v2().into_iter().chain(self.cgroup_v1());
        // A limit above what the machine has limits nothing.
        let cgroup = limits.filter(|limit| machine.is_none_or(|all| *limit < all)).min();
        let of_cgroup = cgroup.is_some();
        cgroup.or(machine).map(|bytes| Available { bytes, of_cgroup })
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn number(&self, path: &Path) -> Option<u64> {
        // `max` is no number: there is no limit.
        self.read(path)?.trim().parse().ok().filter(|bytes| (1..NONE).contains(bytes))
    }

    /// The smallest limit of the cgroup and all that it lies in.
    fn cgroup_v2(&self) -> Option<u64> {
        self.smallest("sys/fs/cgroup", "memory.max", |line| line.strip_prefix("0::"))
    }

    fn cgroup_v1(&self) -> Option<u64> {
        self.smallest("sys/fs/cgroup/memory", "memory.limit_in_bytes", |line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == "memory").then_some(path)
        })
    }

    fn smallest(&self, mount: &str, file: &str, path: impl Fn(&str) -> Option<&str>) -> Option<u64> {
        let groups = self.read("proc/self/cgroup")?;
        let own = groups.lines().find_map(path)?;
        // In a container the path may be the host's, which is not mounted there; the mount itself is its cgroup then.
        let own = Path::new(own.trim_start_matches('/'));
        let above = own.ancestors().filter(|path| path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
        above.filter_map(|group| self.number(&Path::new(mount).join(group).join(file))).min()
    }
}

/// The number behind `name`, which counts in kB of 1024 bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What this process holds in memory, in bytes; known on Linux only.
#[must_use]
pub fn resident() -> Option<u64> {
    // `statm` counts in pages, whose size a program without libc does not know.
    kibibytes(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = folder.path().to_owned();
        (folder, Machine { root })
    }

    fn room(files: &[(&str, &str)]) -> String {
        machine(files).1.room().map_or_else(|| "unknown".to_owned(), |room| room.to_string())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    const MIB: u64 = 1 << 20;

    #[test]
    fn the_smallest_limit_of_the_cgroup_and_all_around_it_counts() {
        let cgroup = ("proc/self/cgroup", "0::/kubepods/pod1/c\n");
        let limit = |mib: u64| (mib * MIB).to_string();
        let rooms = [
            ("nothing is known", room(&[])),
            ("no cgroup", room(&[MEMINFO])),
            ("version 2, of its own", room(&[MEMINFO, cgroup, ("sys/fs/cgroup/kubepods/pod1/c/memory.max", &limit(512))])),
            (
                "of one around it",
                room(&[
                    MEMINFO,
                    cgroup,
                    ("sys/fs/cgroup/kubepods/pod1/c/memory.max", "max\n"),
                    ("sys/fs/cgroup/kubepods/pod1/memory.max", &limit(1024)),
                    ("sys/fs/cgroup/kubepods/memory.max", &limit(2048)),
                ]),
            ),
            ("in a container", room(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", &limit(256))])),
            (
                "outside of what is mounted",
                room(&[MEMINFO, ("proc/self/cgroup", "0::/../../x\n"), ("sys/fs/cgroup/memory.max", &limit(256))]),
            ),
            (
                "more than there is",
                room(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", &limit(99_999))]),
            ),
            (
                "version 1",
                room(&[
                    MEMINFO,
                    ("proc/self/cgroup", "5:cpu:/x\n3:memory,hugetlb:/docker/a\n0::/x\n"),
                    ("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", &limit(768)),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ]),
            ),
            ("not a number", room(&[MEMINFO, cgroup, ("sys/fs/cgroup/kubepods/pod1/c/memory.max", "many")])),
        ];
        insta::assert_snapshot!(rooms.map(|(what, room)| format!("{what}: {room}")).join("\n"));
    }
}
