"""The picture of ARCHITECTURE.md: the floors of the import-linter contract, drawn."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 96


def floors() -> list[list[str]]:
    """Packages and modules of each floor, from the top, as `lint-imports` holds them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = (c for c in settings["contracts"] if c["type"] == "layers")
    return [[name.strip().strip("()") for name in layer.split("|")] for layer in contract["layers"]]


def picture() -> str:
    """Boxes on boxes; what is beside each other knows nothing of each other."""
    lines: list[str] = []
    above: list[int] = []
    for rows in map(_rows, floors()):
        for number, cells in enumerate(rows):
            walls = _walls(cells)
            lines.append(_border(above, walls, dashed=number > 0))
            text, place = "", 0
            for cell, end in zip(cells, [*walls, WIDTH - 1], strict=True):
                text += "│" + cell.center(end - place - 1)
                place = end
            lines.append(text + "│")
            above = walls
    lines.append(_border(above, []).replace("├", "└").replace("┤", "┘"))
    lines[0] = lines[0].replace("├", "┌").replace("┤", "┐")
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _rows(names: list[str]) -> list[list[str]]:
    """A floor in as few rows as it fits into."""
    rows: list[list[str]] = [[]]
    for name in names:
        if sum(len(cell) + 3 for cell in [*rows[-1], name]) > WIDTH - 1:
            rows.append([])
        rows[-1].append(name)
    return rows


def _walls(cells: list[str]) -> list[int]:
    """Columns of the inner walls: room is shared out evenly, by the length of names."""
    spare = WIDTH - 1 - sum(len(cell) + 1 for cell in cells)
    walls, place = [], 0
    for number, cell in enumerate(cells[:-1]):
        place += len(cell) + 1 + spare // len(cells) + (number < spare % len(cells))
        walls.append(place)
    return walls


def _border(above: list[int], below: list[int], *, dashed: bool = False) -> str:
    signs = []
    for column in range(1, WIDTH - 1):
        up, down = column in above, column in below
        signs.append("┼" if up and down else "┴" if up else "┬" if down else "╌" if dashed else "─")
    return "├" + "".join(signs) + "┤"
