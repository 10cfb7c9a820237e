"""Pieces of a self-contained page: escaped text, tables, inline figures. Nothing in it is fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from inference.evaluation.canvas import Drawn

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(title: str, body: Sequence[str]) -> str:
    """A whole document."""
    style = files("inference.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", kind: str = "") -> str:
    """A table of plain text; the first cell of a row is its heading. A row of one cell heads a group."""
    lines = [f'<table class="{kind}">' if kind else "<table>"]
    if caption:
        lines.append(f"<caption>{escape(caption)}</caption>")
    lines.append("<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header) + "</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        if len(row) == 1:
            lines.append(f'<tr class="group"><th colspan="{len(header)}" scope="rowgroup">{escape(row[0])}</th></tr>')
            continue
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        lines.append(f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>"])


def pairs(items: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""

    def item(name: str, value: str) -> str:
        kind = ' class="digest"' if name.endswith("(sha256)") else ""
        return f"<div{kind}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"

    return "<dl>" + "".join(item(name, value) for name, value in items) + "</dl>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def inline(figure: Drawn, number: int) -> str:
    """A figure as inline SVG with its number and caption."""
    svg = figure.svg[figure.svg.index("<svg") :]
    # Names are unique within a figure; several figures share the page.
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1f{number}-", svg)
    label = escape(figure.title, quote=True)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return (
        f'<figure class="{escape(figure.name)}">\n{svg}\n'
        f"<figcaption><b>Figure {number}.</b> {escape(figure.caption)}</figcaption>\n</figure>"
    )
