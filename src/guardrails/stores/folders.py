"""Folders: whether a directory and its disk can take what is to be kept there."""

import os
import shlex
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from guardrails.stores.diagnosis import Check, Status

__all__ = [
    "FREE_BYTES_MIN",
    "NETWORK_FILE_SYSTEMS",
    "file_system_of",
    "folder_check",
    "space_check",
]

FREE_BYTES_MIN = 256 * 1024 * 1024
"""Four journals of the largest size, or weeks of a busy ledger."""

NETWORK_FILE_SYSTEMS = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
        "virtiofs",
    ]
)
"""As Linux calls them. File locks do not hold across their machines, or at all."""


def folder_check(path: Path, *, name: str, purpose: str) -> Check:
    """Judges a private directory, which need not exist yet. Changes nothing.

    Args:
        path: The directory.
        name: Of the check.
        purpose: What is kept there, for a sentence.
    """
    existing = _existing(path)
    if existing != path:
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            text = f"{path} cannot be made: {existing} is not a writable directory"
            return Check(
                name=name,
                status=Status.FAIL,
                text=f"{text}, so {purpose}",
                commands=(shlex.join(["ls", "-ld", str(existing)]),),
            )
    elif not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
        return Check(
            name=name,
            status=Status.FAIL,
            text=f"{path} is not a writable directory, so {purpose}",
            commands=(shlex.join(["ls", "-ld", str(path)]),),
        )
    space = space_check(existing, name=name)
    if space.status is not Status.OK:
        return space
    if existing != path:
        text = f"{path} will be made; {space.text}"
        return Check(name=name, status=Status.OK, text=text)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Check(
            name=name,
            status=Status.WARN,
            text=f"{path} has mode {mode:04o}: other users can look into it",
            commands=(shlex.join(["chmod", "700", str(path)]),),
        )
    text = f"{path} is private and writable; {space.text}"
    return Check(name=name, status=Status.OK, text=text)


def space_check(path: Path, *, name: str) -> Check:
    """Judges what this user may still write to the disk of a path."""
    folder = _existing(path)
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} free"
    if free >= FREE_BYTES_MIN:
        return Check(name=name, status=Status.OK, text=text)
    return Check(
        name=name,
        status=Status.WARN,
        text=f"only {text} on the disk of {path}: once it is full, calls are refused "
        "or not counted",
        commands=(shlex.join(["df", "-h", str(folder)]),),
    )


def file_system_of(path: Path, mounts: Iterable[str]) -> str | None:
    """Returns the type of a path's file system; `None` if nothing says so.

    Args:
        path: An absolute path.
        mounts: The lines of `/proc/mounts`.
    """
    found: tuple[int, str] | None = None
    for line in mounts:
        parts = line.split()
        if len(parts) < 3:
            continue
        # The kernel writes a space in a path as \040.
        point = Path(parts[1].replace("\\040", " "))
        if path.is_relative_to(point) and (
            found is None or len(point.parts) >= found[0]
        ):
            found = (len(point.parts), parts[2])  # The last mount covers the others.
    return None if found is None else found[1]


def _existing(path: Path) -> Path:
    """Returns the nearest part of a path that exists."""
    for one in (path, *path.parents):
        if one.exists():
            return one
    return path


def _size(count: int) -> str:
    if count >= 10**10:
        return f"{count / 10**9:,.0f} GB"
    return f"{count / 10**9:,.1f} GB" if count >= 10**9 else f"{count // 10**6:,} MB"
