"""Measure the reading of ECG sheets against known truth: drawn sheets of four tiers, real files, adversarial inputs.

python -m tests.benchmarks.ecg [--sheets N] [--from N] [--groups ...] [--processes N] [--pause FILE] [--out FOLDER]

A sheet's number is its seed. Each sheet is a line of FOLDER/ecg.jsonl, appended when it is done; called again, it
goes on where the file ends (lines of other code stay and do not count). At the end, or with --table at any time, the
lines become a table, FOLDER/ecg.json with every goal and its figure, and FOLDER/ecg-sheets with pictures of what was
refused or wrong. Bounds are not asserted. Real files come from $PULMOLINK_SAMPLES or ../shared/data.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console

from tests.benchmarks.ecg_figures import show, write_figures, write_pictures
from tests.benchmarks.ecg_judge import ADVERSARIAL, adversarial_tasks, code_digest, real_tasks
from tests.benchmarks.ecg_lines import do, interleaved, missing, of_code, read_lines
from tests.benchmarks.ecg_tiers import TIERS

REAL = "real"
_QUICK = 3
_STOPPED = 3  # exit status: done in part


def main(arguments: list[str]) -> int:
    """Run what is missing and show everything; exit status 0 whatever the figures are, 3 if it was stopped."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ecg", description=__doc__)
    parser.add_argument("--sheets", type=int, default=1000, help="drawn sheets a tier (%(default)s)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="number of the first sheet (%(default)s)")
    parser.add_argument("--groups", nargs="*", default=[*TIERS, REAL, ADVERSARIAL], help="of %(default)s")
    parser.add_argument("--processes", type=int, default=2, help="that read side by side (%(default)s)")
    parser.add_argument("--pause", type=Path, help="stand still while this file exists")
    parser.add_argument("--quick", action="store_true", help="three sheets a tier, no real files: shows that it runs")
    parser.add_argument("--table", action="store_true", help="read nothing more: show the lines that are there")
    parser.add_argument("--out", type=Path, default=Path("bench-output"), help="folder of ecg.jsonl (%(default)s)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.groups) - {*TIERS, REAL, ADVERSARIAL}:
        parser.error(f"unknown groups: {', '.join(sorted(unknown))}")
    samples = Path(os.environ.get("PULMOLINK_SAMPLES", "../shared/data"))
    console = Console(width=160, highlight=False)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "ecg.jsonl"
    whole = True
    if not chosen.table:
        numbers = range(chosen.first, chosen.first + (_QUICK if chosen.quick else chosen.sheets))
        groups = [[(tier, str(number)) for number in numbers] for tier in TIERS if tier in chosen.groups]
        if ADVERSARIAL in chosen.groups:
            groups.append(adversarial_tasks(drawn=not chosen.quick))
        if REAL in chosen.groups and not chosen.quick:
            groups.append(real_tasks(samples))
        tasks = missing(list(interleaved(groups)), read_lines(path))
        console.print(f"{len(tasks)} of {sum(map(len, groups))} are to be read, code {code_digest()}")
        whole = do(tasks, path, samples, processes=chosen.processes, pause=chosen.pause, say=console.print)
    lines = read_lines(path)
    if not lines:
        console.print("no lines yet")
        return 0
    code = code_digest() if not chosen.table else lines[-1]["code"]
    rows = of_code(lines, code)
    if chosen.table and code != code_digest():
        console.print(f"the lines are of code {code}; the code here is {code_digest()} now")
    show(rows, console)
    write_figures(rows, code, chosen.out / "ecg.json")
    if whole:
        write_pictures(rows, samples, chosen.out / "ecg-sheets")
    return 0 if whole else _STOPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
