"""Run a command of pulmolink that kills itself with SIGKILL at a named boundary: `before` or `after` a function.

python -m tests.faults.killed_at before storage.queue.Queue.save_prediction -- --config FILE work
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from pacs_node.cli import main


def arm(moment: str, place: str) -> None:
    """Wrap the function or method at the dotted `place` so that its first call ends this process."""
    module_name, class_name, method_name = place.rsplit(".", 2)
    owner: Any = getattr(importlib.import_module(module_name), class_name)
    original = getattr(owner, method_name)

    def killing(*arguments: Any, **keywords: Any) -> Any:
        if moment == "after":
            original(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, method_name, killing)


if __name__ == "__main__":
    moment, place, _, *arguments = sys.argv[1:]
    arm(moment, place)
    sys.argv = ["pulmolink", *arguments]
    main()
