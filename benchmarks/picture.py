"""The picture of a result: rates of the program, of bare limits and of peers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.outcome import Outcome, Row

__all__ = ["draw"]

_COLOURS = {"ours": "#1f77b4", "bare": "#9e9e9e", "peer": "#d08b38"}


def draw(outcome: Outcome, path: Path) -> bool:
    """Write an SVG of all rates; False where matplotlib is not installed or there are none."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rubix-token-sync"  # the same rows give the same bytes
    from matplotlib import pyplot as plt

    groups: dict[str, list[Row]] = {}
    for row in outcome.rows:
        if row.unit == "tokens/s":
            groups.setdefault(row.scenario, []).append(row)
    if not groups:
        return False
    heights = [len(rows) for rows in groups.values()]
    figure, axes = plt.subplots(
        len(groups),
        1,
        figsize=(9, 0.8 + 0.34 * sum(heights) + 0.7 * len(groups)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, (scenario, rows) in zip(axes[:, 0], groups.items(), strict=True):
        names = [row.name for row in rows]
        medians = [row.median for row in rows]
        errors = [
            [row.median - min(row.values) for row in rows],
            [max(row.values) - row.median for row in rows],
        ]
        axis.barh(names, medians, xerr=errors, color=[_COLOURS[row.kind] for row in rows])
        axis.invert_yaxis()
        axis.set_title(scenario, loc="left", fontsize=10)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.12)
        for at, row in enumerate(rows):
            label = f" {row.median:,.0f}" + ("" if row.goal is None else f" (goal {row.goal:,.0f})")
            axis.text(max(row.values), at, label, va="center", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("tokens a second; bars are medians, whiskers smallest and largest")
    machine = outcome.machine
    figure.suptitle(
        f"{machine['cores']} x {machine['cpu']}, {machine['memory_gib']} GiB,"
        f" {machine['date']}, commit {machine['commit']}",
        fontsize=9,
    )
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True
