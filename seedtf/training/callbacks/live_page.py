"""The page that shows a running training: one HTML file with nothing outside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

__all__ = ["render_page"]

REFRESH_SECONDS = 5
TABLE_ROWS = 15

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5f6368; --line: #dadce0; --card: #f6f7f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a0a4a9; --line: #3c4043; --card: #202124; }
  body { background: #121314; }
  img { filter: invert(0.93) hue-rotate(180deg); }
}
body { margin: 0 auto; padding: 1rem; max-width: 75rem; color: var(--ink);
  font: 1rem/1.4 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0; overflow-wrap: anywhere; }
p { margin: 0.25rem 0 1rem; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr));
  gap: 0.5rem; margin: 0; }
dl div { background: var(--card); border-radius: 0.5rem; padding: 0.5rem 0.75rem; }
dt, th { color: var(--soft); font-size: 0.8rem; font-weight: normal; }
dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr));
  gap: 1rem; margin-top: 1rem; align-items: start; }
img { width: 100%; border-radius: 0.5rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.85rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.3rem 0.15rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tr.best td { font-weight: bold; }
"""

COLUMNS = (
    ("epoch", "epoch", "d"),
    ("lr", "rate", ".1e"),
    ("loss", "loss", ".4f"),
    ("accuracy", "acc", ".4f"),
    ("val_loss", "val loss", ".4f"),
    ("val_accuracy", "val acc", ".4f"),
)
STRENGTH = ("augment_strength", "strength", ".2f")


def render_page(
    *,
    title: str,
    state: str,
    refresh: bool,
    headline: Sequence[tuple[str, str]],
    rows: Sequence[Mapping[str, float]],
    best_epoch: int | None,
    png: bytes | None,
    show_strength: bool = False,
) -> str:
    """The page as text: headline numbers, curves, the last epochs with the newest on top.

    It holds the image, needs no script and asks for nothing over the network. With ``refresh`` the
    browser reads it again every few seconds. Every text is escaped here.

    Args:
        title: the name of the run.
        state: one line on how training stands.
        refresh: whether more is to come.
        headline: pairs of a name and a value.
        rows: the history, oldest first.
        best_epoch: the 1-based epoch whose row stands out.
        png: the curves; None before the first epoch.
        show_strength: whether the table has a column for the strength of the augmentation.
    """
    reload = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">\n' if refresh else ""
    cards = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in headline)
    columns = (*COLUMNS, STRENGTH) if show_strength else COLUMNS
    table = _table(rows, best_epoch, columns)
    content = "" if png is None else f"<main>{_image(png)}{table}</main>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{reload}<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(title)}</h1>\n<p>{_text(state)}</p>\n<dl>{cards}</dl>\n{content}</body>\n</html>\n"
    )


def _image(png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    alt = "Loss, accuracy and learning rate over the epochs"
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def _table(
    rows: Sequence[Mapping[str, float]],
    best_epoch: int | None,
    columns: Sequence[tuple[str, str, str]],
) -> str:
    head = "".join(f"<th>{name}</th>" for _, name, _ in columns)
    lines = []
    for row in reversed(rows[-TABLE_ROWS:]):
        mark = ' class="best"' if row["epoch"] == best_epoch else ""
        cells = "".join(f"<td>{row[key]:{form}}</td>" for key, _, form in columns)
        lines.append(f"<tr{mark}>{cells}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _text(text: str) -> str:
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))
