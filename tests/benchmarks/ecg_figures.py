"""From the lines of the ECG benchmark to its figures: a table, every goal with what was measured, and pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import beta

from ecg_ingest import LEADS
from tests.benchmarks.ecg_judge import ADVERSARIAL, REAL, Judge, Row
from tests.benchmarks.ecg_tiers import TIERS

ACCEPTED_GOALS = dict(zip(TIERS, (0.99, 0.95, 0.85, 0.40), strict=True))
_PICTURES_OF_A_REASON, _PICTURES_ACCEPTED = 4, 2  # of each group
_CONFIDENCE = 0.95


def highest_rate(wrong: int, of: int) -> float | None:
    """The highest rate that is not ruled out at 95 % by so many wrong ones (Clopper and Pearson 1934, one-sided)."""
    if not of:
        return None
    return 1.0 if wrong == of else round(float(beta.ppf(_CONFIDENCE, wrong + 1, of - wrong)), 5)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of one group."""
    read = [row for row in rows if row["accepted"]]
    wrong = [row["sheet"] for row in read if row.get("wrong")]
    return {
        "sheets": len(rows),
        "accepted": len(read),
        "accepted_share": round(len(read) / len(rows), 4),
        "wrong": wrong,
        "wrong_rate_at_most": highest_rate(len(wrong), len(read)),
        "unlike_leads": sum(len(row.get("unlike", ())) for row in read),  # whose signal is hardly their own
        "iou_median": _quantile(read, "iou", 0.5),
        "iou_p5": _quantile(read, "iou", 0.05),
        "r_median": _quantile(read, "r", 0.5),
        "snr_db_median": _quantile(read, "snr_db", 0.5),
        "late_ms_p95": _quantile(read, "late_ms", 0.95, absolute=True),
        "picture_r_median": _quantile(read, "picture_r", 0.5),
        "seconds_median": _quantile(rows, "seconds", 0.5),
        "seconds_median_accepted": _quantile(read, "seconds", 0.5),
        "seconds_worst_accepted": _quantile(read, "seconds", 1.0),
        "seconds_worst": _quantile(rows, "seconds", 1.0),
        "mebibytes_worst": _quantile(rows, "mebibytes", 1.0),
        "refused": dict(Counter(row["reason"] for row in rows if not row["accepted"]).most_common()),
    }


def _quantile(rows: Iterable[Row], name: str, at: float, *, absolute: bool = False) -> float | None:
    """Over all leads, or all sheets, of the rows that have it."""
    values = [np.atleast_1d(row[name]) for row in rows if row.get(name) is not None]
    if not values:
        return None
    joined = np.concatenate(values)
    return round(float(np.quantile(np.abs(joined) if absolute else joined, at)), 4)


def goals(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each goal of issue 5: what is wanted, what was measured, whether it holds. None where nothing was measured."""
    by_group = grouped(rows)
    found: list[dict[str, Any]] = []

    def goal(what: str, wanted: str, measured: object, holds: bool | None) -> None:
        found.append({"goal": what, "wanted": wanted, "measured": measured, "holds": holds})

    def limit(what: str, group: str, figure: str, least: float | None = None, most: float | None = None) -> None:
        value = by_group.get(group, {}).get(figure)
        holds = None if value is None else (least is None or value >= least) and (most is None or value <= most)
        goal(what, f">= {least:g}" if least is not None else f"<= {most:g}", value, holds)

    for tier in TIERS:
        if tier in by_group:
            of = by_group[tier]
            measured = f"{len(of['wrong'])} of {of['accepted']}, at most {of['wrong_rate_at_most']} (95 %)"
            goal(f"wrong among accepted, {tier}", "0 of >= 1000 sheets", measured, not of["wrong"])
    real = [row for row in rows if row["group"] in REAL]
    if real:
        wrong = [row["sheet"] for row in real if row["accepted"] and row["wrong"]]
        goal("wrong among real files", "0", f"{len(wrong)} of {sum(row['accepted'] for row in real)}", not wrong)
    for tier, least in ACCEPTED_GOALS.items():
        limit(f"accepted, {tier}", tier, "accepted_share", least)
    for group, what, least in (("ecg_scan", "labelled 12-lead scans", 9), ("ecg_photo", "photographs", 5)):
        files = [row for row in real if row["group"] == group and row.get("is_12_lead")]
        if files:
            read = sum(row["accepted"] for row in files)
            goal(f"accepted {what}", f">= {least}", f"{read} of {len(files)}", read >= least)
    drawn = [row for row in rows if row["group"] in TIERS and row["accepted"]]
    for at, name, least in ((0.5, "median", 0.93), (0.05, "5th percentile", 0.85)):
        value = _quantile(drawn, "iou", at)
        holds = None if value is None else value >= least
        goal(f"lead-box IoU of drawn sheets, {name}", f">= {least}", value, holds)
    limit("signal r, vector, median", "vector", "r_median", 0.99)
    limit("signal r, clean, median", "clean", "r_median", 0.97)
    limit("signal-to-noise ratio, clean, median dB", "clean", "snr_db_median", 17.0)
    limit("224x48 picture r, waveform and clean scan, median", "clean", "picture_r_median", 0.90)
    adversarial = [row for row in rows if row["group"] == ADVERSARIAL]
    if adversarial:
        right = sum(row.get("right", False) for row in adversarial)
        goal(
            "adversarial inputs with the right outcome",
            "all",
            f"{right} of {len(adversarial)}",
            right == len(adversarial),
        )
    limit("seconds a clean scan on one core, median", "clean", "seconds_median", most=0.6)
    for figure, what, most in (
        ("seconds_worst_accepted", "seconds on one core, worst accepted", 4.0),
        ("mebibytes_worst", "MiB, worst", 500.0),
    ):
        values = [of[figure] for of in by_group.values() if of[figure] is not None]
        goal(what, f"<= {most:g}", max(values, default=None), max(values) <= most if values else None)
    return found


def grouped(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The figures of each group, in the order of tiers, real files and adversarial inputs."""
    groups = [group for group in (*TIERS, *REAL, ADVERSARIAL) if any(row["group"] == group for row in rows)]
    return {group: summary([row for row in rows if row["group"] == group]) for group in groups}


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the tables."""
    titles = (
        "",
        "accepted",
        "wrong",
        "unlike",
        "IoU med/p5",
        "r",
        "SNR dB",
        "picture r",
        "s med/worst",
        "MiB",
        "refused for",
    )
    table = Table(*titles, box=SIMPLE_HEAD)
    for group, of in grouped(rows).items():
        table.add_row(
            f"{group} ({of['sheets']})",
            f"{of['accepted_share']:.1%}",
            str(len(of["wrong"])),
            str(of["unlike_leads"]),
            f"{of['iou_median']}/{of['iou_p5']}",
            *(str(of[name]) for name in ("r_median", "snr_db_median", "picture_r_median")),
            f"{of['seconds_median']}/{of['seconds_worst_accepted']}",
            str(of["mebibytes_worst"]),
            ", ".join(f"{reason} {count}" for reason, count in of["refused"].items()),
        )
    console.print(table)
    held = Table("goal", "wanted", "measured", "", box=SIMPLE_HEAD)
    for goal in goals(rows):
        word = {True: "holds", False: "[red]missed[/]", None: "not measured"}[goal["holds"]]
        held.add_row(goal["goal"], goal["wanted"], str(goal["measured"]), word)
    console.print(held)
    for row in rows:
        if row["group"] == ADVERSARIAL and not row.get("right"):
            console.print(f"[red]wrong outcome[/]: {row['sheet']}: {row.get('outcome', row.get('reason'))}")
        elif row["accepted"] and row.get("wrong"):
            console.print(f"[red]wrong leads[/]: {row['group']} {row['sheet']}: {', '.join(row['wrong'])}")


def write_figures(rows: Sequence[Row], code: str, path: Path) -> None:
    """Everything as JSON."""
    text = json.dumps({"code": code, "goals": goals(rows), "groups": grouped(rows)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def write_pictures(rows: Sequence[Row], samples: Path, folder: Path) -> None:
    """Every wrong sheet, some of each reason of refusal and some accepted ones, boxes over them, drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(samples)
    kept: Counter[tuple[str, str]] = Counter()
    for row in rows:
        group = row["group"]
        if group == ADVERSARIAL and row.get("right"):
            continue
        kind = "wrong" if row.get("wrong") or group == ADVERSARIAL else row.get("reason", "accepted")
        kept[group, kind] += 1
        most = _PICTURES_ACCEPTED if kind == "accepted" else _PICTURES_OF_A_REASON
        if kind != "wrong" and group not in REAL and kept[group, kind] > most:
            continue
        picture = judge.picture((group, row["sheet"]))
        if picture is not None:
            name = f"{group}-{row['sheet']}-{kind}".replace("/", "-").replace(" ", "-")
            cv2.imwrite(str(folder / f"{name}.jpg"), _boxed(picture, row), [cv2.IMWRITE_JPEG_QUALITY, 80])


def _boxed(rgb: NDArray[np.uint8], row: Row) -> NDArray[np.uint8]:
    picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    for lead, (left, top, right, bottom) in zip(LEADS, row.get("boxes") or [], strict=False):
        colour = (40, 40, 220) if lead in row.get("wrong", ()) else (200, 60, 0)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 2)
        cv2.putText(picture, lead, (left + 5, top + 24), 0, 0.8, colour, 2)
    said = row.get("detail") or ""
    cv2.putText(picture, said[:120], (12, picture.shape[0] - 14), 0, 0.7, (40, 40, 220), 2)
    return picture
