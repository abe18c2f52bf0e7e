"""Files that come to a folder all together, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A new folder, whose files move to `folder` in the end; after an error none of them does.

    `folder` is made if it is not there, and goes again with an error. A process that has opened or
    mapped a file that is replaced keeps the old one.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".tbc-", dir=folder))
    try:
        yield place
        _move(place, folder)
        made.clear()
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for each in made:
            with suppress(OSError):
                each.rmdir()


def _move(place: Path, folder: Path) -> None:
    """Move all files; what would fail half-way is found before the first."""
    moves = {file: folder / file.relative_to(place) for file in place.rglob("*") if file.is_file()}
    for target in moves.values():
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
    for file, target in moves.items():
        file.replace(target)
