"""Run pulmolink with every sync replaced by nothing, to measure what durability costs. Never for anything else."""

from __future__ import annotations

import os
import sys
from typing import Any

from sqlalchemy import event
from sqlalchemy.pool import Pool

from pacs_node.cli import main


def _unsynced(connection: Any, *_: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")


if __name__ == "__main__":
    os.fsync = lambda _descriptor: None
    event.listen(Pool, "checkout", _unsynced)
    sys.stderr.write("pulmolink: nothing is synced to disk (benchmark only)\n")
    main()
