"""Our own client as a load: associations in threads of this process, started together by a line on standard input.

python -m tests.benchmarks.sender PORT AE_TITLE ASSOCIATIONS FILE... prints "ready", waits, sends, and prints when it
began and ended (seconds of the monotonic clock, which all processes of a machine share).
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from pacs_node.dicom.client import Conversation, Peer
from pacs_node.flow.part10 import from_part10


def main(port: int, ae_title: str, associations: int, files: list[Path]) -> int:
    """Send; the exit status is 1 if any object was not answered with success."""
    peer = Peer(ae_title=ae_title, host="127.0.0.1", port=port, calling_ae_title="BENCH", timeout_seconds=60)
    known = from_part10(files[0].read_bytes())
    context = (known.sop_class_uid, known.transfer_syntax_uid)
    statuses: list[int] = []

    def send(share: list[Path]) -> None:
        with Conversation(peer, [context]) as conversation:
            for path in share:
                statuses.append(conversation.store(path, sop_class=context[0], transfer_syntax=context[1]))

    threads = [threading.Thread(target=send, args=(files[number::associations],)) for number in range(associations)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{began} {time.monotonic()}\n")
    return 0 if statuses == [0] * len(files) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [Path(name) for name in sys.argv[4:]]))
