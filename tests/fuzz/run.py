"""Search with atheris for bytes that a target does not bear, target after target, for as long as it is told.

python -m tests.fuzz.run --minutes N [--target NAME] [--out FOLDER] needs `pip install atheris`. The corpus that is
found stays in FOLDER and is gone on with by the next run; FOLDER/log.jsonl says what each turn cost and did, and bytes
that failed lie in FOLDER/failures. Exit status 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.seeds import seeds

WEIGHTS = {"negotiation": 4, "commands": 3, "conversation": 3, "header": 2, "commitment": 2, "p_data": 1}
"""How much of the time each target gets."""
TURN_SECONDS = 60
RSS_MB = 1024
SLOW_SECONDS = 10
"""An input that takes longer is a failure."""


def main(arguments: list[str]) -> int:
    """Take turns until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, required=True, help="of wall clock, in all")
    parser.add_argument("--target", choices=sorted(WEIGHTS), help="only this one")
    parser.add_argument("--out", type=Path, default=Path("fuzz-output"), help="folder (%(default)s)")
    chosen = parser.parse_args(arguments)
    failures: Path = chosen.out / "failures"
    failures.mkdir(parents=True, exist_ok=True)
    turns = [chosen.target] if chosen.target else [name for name, weight in WEIGHTS.items() for _ in range(weight)]
    ends = time.monotonic() + chosen.minutes * 60
    number = 0
    while time.monotonic() < ends:
        _turn(turns[number % len(turns)], chosen.out, min(TURN_SECONDS, ends - time.monotonic()))
        number += 1
    found = sorted(path.name for path in failures.iterdir())
    sys.stdout.write(f"{len(found)} failures {found}\n")
    return 1 if found else 0


def _turn(target: str, folder: Path, seconds: float) -> None:
    corpus = folder / target
    if not corpus.exists():
        corpus.mkdir()
        for number, seed in enumerate(seeds(target)):
            (corpus / f"seed{number:03d}").write_bytes(seed)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.atheris_target", target, str(corpus)),
            f"-max_total_time={max(1, round(seconds))}",
            f"-rss_limit_mb={RSS_MB}",
            f"-timeout={SLOW_SECONDS}",
            f"-artifact_prefix={folder / 'failures' / target}-",
            "-max_len=20000",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    executions = re.search(r"number_of_executed_units:\s*(\d+)", ended.stderr)
    line = {
        "target": target,
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "executions": int(executions.group(1)) if executions else 0,
        "corpus": len(list(corpus.iterdir())),
        "exit_status": ended.returncode,
    }
    if ended.returncode:
        line["told"] = (ended.stdout + ended.stderr)[-3000:]
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
