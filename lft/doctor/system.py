"""Python, memory, limits and folders judged. Pure."""

import shlex
from collections.abc import Iterator, Sequence

from lft.core.words import counted, data_size
from lft.doctor.facts import Facts, FolderFacts
from lft.doctor.finding import Finding, fail, ok, warn

TRIED = ((3, 11), (3, 12), (3, 13))
LEAST_MEMORY_BYTES = 4 * 2**30
LEAST_OPEN_FILES = 4096
"""A rank of several opens the files of its model, of its data and a socket to every other rank."""
LEAST_SHARED_BYTES = 2**30
"""Docker gives 64 MiB; NCCL puts its buffers of each pair of GPUs there."""
LEAST_FREE_BYTES = 5 * 2**30
NO_BYTES = 2**28
LEAST_FREE_FILES = 1000
NETWORK = frozenset(
    ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "cifs", "smb3", "smbfs", "glusterfs", "panfs")
) | frozenset(("wekafs", "pvfs2", "afs", "9p", "virtiofs"))
NETWORK_FUSE = (
    "fuse.ceph",
    "fuse.glusterfs",
    "fuse.sshfs",
    "fuse.gcsfuse",
    "fuse.s3fs",
    "fuse.juicefs",
    "fuse.mount-s3",
)
"""As the kernel names them in mountinfo."""
OUTPUT = "output"
IN_MEMORY = ("tmpfs", "ramfs")


def judge_python(facts: Facts) -> Finding:
    """The interpreter."""
    version = tuple(int(part) for part in facts.python.split(".")[:2])
    text = f"{facts.python}, {facts.executable}"
    if version not in TRIED:
        return warn("python", f"{text}; lft was tried on 3.11 to 3.13", "python3.13 -m venv .venv")
    if not facts.in_environment:
        return ok("python", f"{text}, in no virtual environment: packages are shared with the system's")
    return ok("python", text)


def judge_memory(facts: Facts) -> Iterator[Finding]:
    """Memory and cores, and what narrows them."""
    machine, limits = facts.machine, facts.limits
    memory = f"{data_size(limits.available_bytes)} of {data_size(machine.memory_bytes)} free"
    if machine.memory_bytes < limits.physical_bytes:
        memory += f"; a cgroup's limit, the machine has {data_size(limits.physical_bytes)}"
    if limits.available_bytes < LEAST_MEMORY_BYTES:
        yield warn("memory", memory, "end other processes, or give the container more; small models only as it is")
    else:
        yield ok("memory", memory)
    cores = counted(machine.cpu_cores, "core")
    narrowed = f" of {limits.all_cores}, by affinity, a cgroup or SLURM" if machine.cpu_cores < limits.all_cores else ""
    yield ok("cores", f"{cores}{narrowed}; OMP_NUM_THREADS of ranks is set by lft")


def judge_limits(facts: Facts) -> Iterator[Finding]:
    """Limits of this shell that large runs meet."""
    limits, several = facts.limits, len(facts.machine.gpus) > 1
    parts = [f"{limits.open_files:,} open files" if limits.open_files else "open files unlimited"]
    if limits.open_files is not None and limits.open_files < LEAST_OPEN_FILES:
        most = f"{limits.most_open_files}" if limits.most_open_files is not None else "unlimited"
        parts = []
        yield warn("limits", f"{limits.open_files:,} open files: too few for many ranks or shards", f"ulimit -n {most}")
    if limits.address_bytes is not None:
        text = f"virtual memory is limited to {data_size(limits.address_bytes)}: CUDA reserves more than it uses"
        yield warn("limits", text, "ulimit -v unlimited")
    if limits.has_infiniband and limits.locked_bytes is not None:
        text = f"locked memory is limited to {data_size(limits.locked_bytes)}: InfiniBand needs to lock its buffers"
        yield warn("limits", text, "ulimit -l unlimited; in a container: --ulimit memlock=-1")
    shared = limits.shared_memory_bytes
    if shared is not None and shared < LEAST_SHARED_BYTES and several:
        text = f"/dev/shm has {data_size(shared)}: NCCL may fail with a bus error"
        yield warn("limits", text, "in a container: --shm-size=8g, or --ipc=host")
    elif shared is not None:
        parts.append(f"/dev/shm {data_size(shared)}")
    if parts:
        yield ok("limits", ", ".join(parts))


def judge_folders(folders: Sequence[FolderFacts]) -> Iterator[Finding]:
    """Where runs write: a line for each use, those that are alike on one file system in one."""
    alike: dict[tuple[str, str], list[FolderFacts]] = {}
    for folder in folders:
        alike.setdefault((folder.mount, folder.error), []).append(folder)
    for those in alike.values():
        first = next((each for each in those if each.use == OUTPUT), those[0])
        others = ", ".join(each.use for each in those if each is not first)
        where = f"{first.use} {first.path}" + (f", with {others}" if others else "")
        yield from _judge_folder(first, where, holds_output=first.use == OUTPUT)


def _judge_folder(folder: FolderFacts, where: str, *, holds_output: bool) -> Iterator[Finding]:
    elsewhere = "name another by --output-dir, LFT_CACHE, HF_HOME or TMPDIR"
    if folder.error:
        yield fail("folders", f"{folder.path} ({folder.use}) cannot be written: {folder.error}", elsewhere)
        return
    kind = folder.file_system
    network = kind in NETWORK or kind in NETWORK_FUSE
    text = f"{where}: {data_size(folder.free_bytes)} free, {kind or 'unknown file system'}"
    text += ", a network file system" if network else ", in memory: gone after a restart" if kind in IN_MEMORY else ""
    look = f"df -h {shlex.quote(folder.mount)}; then free some, or {elsewhere}"
    if folder.free_bytes < NO_BYTES:
        yield fail("folders", f"{text}: nothing can be saved there", look)
    elif folder.free_bytes < LEAST_FREE_BYTES:
        yield warn("folders", f"{text}: little for checkpoints and models", look)
    elif folder.free_files is not None and folder.free_files < LEAST_FREE_FILES:
        yield warn(
            "folders", f"{text}, but room for {folder.free_files} more files only (inodes)", f"df -i {folder.mount}"
        )
    elif holds_output and not folder.renames:
        yield fail("folders", f"{text}: a file cannot replace another, which every save does", elsewhere)
    elif holds_output and not folder.locks:
        problem = "locks do not work there: lft keeps a file in their place, which a crashed host may leave behind"
        yield warn("folders", f"{text}: {problem}", "mount it with flock, or name another by --output-dir")
    else:
        yield ok("folders", text + ("; locks and renames work" if holds_output else ""))
