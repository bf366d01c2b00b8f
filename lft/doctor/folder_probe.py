"""What a folder can do, tried in it: printed as one line of JSON. Run as `python -m lft.doctor.folder_probe FOLDER`.

In a process of its own, since a network share whose server is gone holds up whoever touches it.
"""

import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the fields of lft.doctor.facts.FolderFacts, but for `use` and `path`."""
    sys.stdout.write(json.dumps(try_folder(Path(sys.argv[1]))) + "\n")


def try_folder(wanted: Path, mounts: str | None = None) -> dict[str, Any]:
    """Free space, and whether files can be written, replaced and locked; nothing is left behind.

    A folder that does not exist yet is judged by the nearest one above it.
    """
    folder = next(path for path in (wanted, *wanted.parents) if path.exists())
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8") if mounts is None else mounts
    mount, kind = mount_of(folder.resolve(), text)
    space = os.statvfs(folder)
    facts: dict[str, Any] = {
        "mount": mount,
        "file_system": kind,
        "free_bytes": space.f_bavail * space.f_frsize,
        "free_files": space.f_favail if space.f_files else None,
    }
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".lft-doctor-") as inner:
            return facts | {"renames": _renames(Path(inner)), "locks": _locks(Path(inner) / "lock")}
    except OSError as error:
        return facts | {"error": str(error.strerror or error)}


def mount_of(folder: Path, mountinfo: str) -> tuple[str, str]:
    """Mount point and kind of the file system of an absolute folder, by /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    found = ("/", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4].replace("\\040", " ")
        if folder.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, after.split()[0])
    return found


def _renames(folder: Path) -> bool:
    """Write, sync, and put one file in the place of another, as every file of a run is written."""
    old, new = folder / "old", folder / "new"
    for path in (old, new):
        with path.open("w", encoding="utf-8") as stream:
            stream.write(path.name)
            stream.flush()
            os.fsync(stream.fileno())
    new.replace(old)
    return old.read_text(encoding="utf-8") == "new" and not new.exists()


def _locks(path: Path) -> bool:
    """Whether a lock that is held keeps the next one out."""
    with path.open("w") as first, path.open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


if __name__ == "__main__":
    main()
