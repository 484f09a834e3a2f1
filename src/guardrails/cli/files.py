"""Files: writes a file as a whole or not at all."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from guardrails.errors import ConfigurationError

__all__ = ["writing"]


@contextlib.contextmanager
def writing(path: Path | None, *, force: bool) -> Generator[BinaryIO]:
    """Lends a file to write to. Only a complete one is there under its name.

    It is readable by its owner alone, as a ledger is.

    Args:
        path: The file; `None` is standard output.
        force: Whether a file that exists is replaced.

    Raises:
        ConfigurationError: If the file exists, or cannot be made.
    """
    if path is None:
        yield sys.stdout.buffer
        return
    _check_free(path, force=force)
    try:
        opened, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    except OSError as error:
        raise ConfigurationError(
            f"--output: {str(path)!r} cannot be written ({error.strerror}). Name a "
            "file in a directory that exists and that you may write to."
        ) from error
    unfinished = Path(name)
    try:
        with os.fdopen(opened, "wb") as out:
            yield out
        _check_free(path, force=force)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _check_free(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise ConfigurationError(
            f"--output: {str(path)!r} is a directory. Name a file."
        )
    if not force and path.exists():
        raise ConfigurationError(
            f"--output: {str(path)!r} exists. Give another name, or --force."
        )
