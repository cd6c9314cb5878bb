"""A page of HTML that needs nothing but itself: style, figures and data are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; --ink: #2b3038; --soft: #5d6673; --line: #dfe3e8; --back: #f4f6f8 }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1240px; margin: 0 auto; padding: 16px }
h1 { font-size: 1.5rem; margin: .4rem 0 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
p { margin: .4rem 0; max-width: 75ch } .soft { color: var(--soft) }
.verdict { border-radius: 10px; padding: 12px 16px; margin: 12px 0; border-left: 6px solid; background: #fff }
.verdict strong { font-size: 1.2rem } .verdict ul { margin: .4rem 0; padding-left: 1.2rem }
.good { border-color: #2f8f4e } .bad { border-color: #c9621a } .unknown { border-color: #8b95a1 }
.grid { display: grid; gap: 12px; align-items: start }
.grid { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)) } .grid > * { min-width: 0 }
figure, .card, pre { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 8px }
figure, .card, pre { overflow-x: auto }
figure img { display: block; width: 100%; height: auto; max-width: 480px; margin: 0 auto }
figcaption { font-size: .88rem; color: var(--soft); padding: 6px 4px 2px; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums }
th { text-align: left; font-weight: 600; hyphens: none } td + td, th + th { text-align: right }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); vertical-align: top }
td { overflow-wrap: anywhere }
tr:last-child td { border-bottom: 0 }
.words :is(th, td) { text-align: left } .numbers td { white-space: nowrap } td.off { color: #b1500d; font-weight: 600 }
pre { font-size: .85rem; padding: 10px 12px }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0 }
@media (max-width: 480px) { .numbers :is(th, td) { padding: 4px 4px; font-size: .84rem } }
@media print { body { background: #fff } figure, .card { break-inside: avoid } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole document, from pieces of HTML."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n'
    )
    return f"{head}<body>\n<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"


def section(title: str, *parts: str) -> str:
    """A heading and what follows it; nothing at all if all parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(text: str, soft: bool = False) -> str:
    return f"<p{' class=soft' if soft else ''}>{escape(text)}</p>"


def grid(parts: Iterable[str]) -> str:
    """Cards side by side where there is room, below one another on a phone."""
    body = "\n".join(part for part in parts if part)
    return f'<div class="grid">\n{body}\n</div>' if body else ""


def figure(svg: str, alt: str, caption: str = "") -> str:
    """A figure as an image inside the page; `alt` is read to those who do not see it."""
    data = base64.b64encode(svg.encode()).decode()
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">{words}</figure>'


def table(
    header: Sequence[str] | None,
    rows: Iterable[Sequence[str]],
    off: Iterable[tuple[int, int]] = (),
    words: bool = False,
) -> str:
    """A table in a card; cells at (row, column) in `off` are marked. With a header, cells do not wrap.

    `words` sets all columns to the left, for text; otherwise all but the first stand to the right, for numbers.
    """
    marked = set(off)
    lines = []
    if header:
        lines.append("<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>")
    for i, row in enumerate(rows):
        cells = (f"<td{' class=off' if (i, k) in marked else ''}>{escape(cell)}</td>" for k, cell in enumerate(row))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    body = "\n".join(lines)
    kind = ' class="words"' if words else ' class="numbers"' if header else ""
    return f'<div class="card"><table{kind}>\n{body}\n</table></div>' if lines else ""


def verdict_box(kind: str, headline: str, reasons: Iterable[str], note: str) -> str:
    """The box on top: `kind` good, bad or unknown, one sentence, the reasons for it, and a note."""
    points = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    points = f"<ul>{points}</ul>" if points else ""
    return f'<div class="verdict {kind}"><strong>{escape(headline)}</strong>{points}{paragraph(note)}</div>'


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def details(summary: str, body: str) -> str:
    """Something folded away until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{body}\n</details>" if body else ""
