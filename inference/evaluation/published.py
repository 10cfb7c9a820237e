"""Published figures to print beside the measured ones, each with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.csv_file import NotCsv, read_rows, uneven
from inference.evaluation.errors import RefusedRow, TableRefused

LENGTH = 60
MOST_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a publication printed, by the names of `TABLE_FIGURES`, as text."""

    label: str
    values: Mapping[str, str]
    note: str


TABLE_FIGURES = {
    "mae_sd": "MAE ± SD, mmHg",
    "slope": "Slope, predicted on measured",
    "squared_correlation": "Squared correlation r² (printed as R2)",
    "explained": "1 − SSE/SST",
    "root_mean_square_error": "Root mean square error, mmHg",
    "bias": "Bias, mmHg",
    "limits": "95 % limits of agreement, mmHg (each examination by itself)",
    "limits_width": "Width of these limits, mmHg",
    "measured_sd": "SD of measured mPAP, mmHg",
}
# What of the publication is held here is what was checked: the width of its limits, and two figures that follow from
# its Table 1 by arithmetic (five of its six rows give the same SD of measured mPAP).
YOON = Published(
    label="Yoon et al., DINOv2 + ECG",
    values={"limits_width": "39.6", "explained": "0.22 *", "measured_sd": "11.4 to 11.5 *"},
    note="* recomputed from the figures printed in Table 1 of Yoon et al., which prints neither. The other cells of "
    "that table are not held by this program; --published prints them here.",
)


def read_published(path: Path) -> Published:
    """Figures from a CSV file with the columns figure and value; figures are the names of `TABLE_FIGURES`, or `label`.

    Raises
    ------
    TableRefused
        If a column is missing, or a figure is unknown, empty or stands twice.
    OSError
        If the file cannot be read.
    """
    values: dict[str, str] = {}
    faults: list[RefusedRow] = []
    try:
        columns, rows = read_rows(path, MOST_ROWS)
    except NotCsv as error:
        raise TableRefused((RefusedRow(line=0, column="", reason=error.detail),), error.hint) from error
    if sorted(columns) != ["figure", "value"]:
        raise TableRefused((RefusedRow(line=1, column="", reason="needs the columns figure and value, no others"),))
    for number, cells in rows:
        column = "figure"
        if len(cells) != len(columns):
            column, reason = "", uneven(len(cells), len(columns))
        else:
            row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
            name, value = row["figure"], row["value"]
            if name not in {*TABLE_FIGURES, "label"}:
                reason = f"is none of label, {', '.join(TABLE_FIGURES)}"
            elif name in values:
                reason = "stands twice"
            elif not value or len(value) > LENGTH:
                column, reason = "value", f"is empty or longer than {LENGTH} characters"
            else:
                values[name] = value
                continue
        faults.append(RefusedRow(line=number, column=column, reason=reason, counted="row"))
    if faults:
        raise TableRefused(tuple(faults))
    label = values.pop("label", "as published")
    return Published(label=label, values=values, note="Published figures as given by --published; not checked here.")
