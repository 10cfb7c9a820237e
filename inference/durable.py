"""Files that are there whole or not at all: written beside, synced, renamed, and the folder synced."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Replace the content of `path` with `data`; a crash at any line leaves the old content or the new."""
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    settle(draft, path)


def settle(draft: Path, path: Path) -> None:
    """Rename a synced `draft` to `path` and sync their folder."""
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
