"""Is there room for more objects? Disk space and inodes under the object folder, against their bounds."""

from __future__ import annotations

import os
from pathlib import Path

from pacs_node.settings import Limits


def shortage(folder: Path, limits: Limits) -> str:
    """What is short, naming its limit, or "" while there is room. A folder that cannot be asked is not short of room.

    File systems that make inodes as they need them (btrfs, ZFS) count none: they are never short of them.
    """
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    if found.f_bavail * found.f_frsize < limits.free_disk_bytes:
        return "disk nearly full (limits.free_disk_bytes)"
    if found.f_files and found.f_favail < limits.free_inodes:
        return "few inodes left on disk (limits.free_inodes)"
    return ""
