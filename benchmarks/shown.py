"""The results of a run as Markdown."""

from __future__ import annotations

from statistics import median
from typing import Any

from tabulate import tabulate

HEADERS = ["what", "unit", "ours", "beside", "", "ratio (quartiles)", "target", "peak, MiB"]


def markdown(results: dict[str, Any]) -> str:
    """Return a run's tables, below what it ran on."""
    found = [_about(results)]
    if "agreement" in results:
        found.append(_agreement(results["agreement"]))
    if results["cases"]:
        found.append(_cases(results["cases"]))
    if "tables" in results:
        found += [_hours(results["tables"]), _seconds_a_seed(results["tables"])]
    if "growth" in results:
        found.append(_growth(results["growth"]))
    return "\n\n".join(found)


def _about(results: dict[str, Any]) -> str:
    found = results["machine"]
    where = f"{found['processor']}, {found['cores']} cores, {found['threads']} threads"
    return (
        f"{where}, load {found['load_before']:.1f} before; Python {found['python']}, torch "
        f"{found['torch']}; medians (quartiles) of {results['rounds']} turns; "
        f"{results.get('seconds', 0) / 60:.1f} minutes in all."
    )


def _agreement(metrics: dict[str, Any]) -> str:
    rows = [
        [metric, *(f"{each[side]['mean']:.1f} ± {each[side]['std']:.1f}"
                   for side in ("ours", "plain")),
         f"{each['standard_errors']:+.1f}"]
        for metric, each in metrics.items()
    ]  # fmt: skip
    headers = ["metric, %", "ours", "plain", "difference, standard errors"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _cases(cases: list[dict[str, Any]]) -> str:
    rows = []
    for case in cases:
        ours, *others = case["sides"].items()
        for side, values in others:
            row = [f"{case['part']}: {case['name']}", case["unit"], span(ours[1]), side]
            row += [span(values)]
            if side == case["reference"]:
                row += [*_judged(case)]
            else:
                row += [f"{values['median'] / ours[1]['median']:.2f}", ""]
            rows.append([*row, _memory(case, ours[1], values)])
    return tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True)


def _judged(case: dict[str, Any]) -> tuple[str, str]:
    """Return a case's ratio and whether target and aim are met, by the median or a quartile."""
    at_least = case["bound"] == "at least"
    target = f"{'≥' if at_least else '≤'} {case['target']:g}"
    judged = case["ratio"]
    if case["bound"] == "seconds":
        judged, target = case["sides"]["ours"], f"{target} s"

    def met(key: str) -> bool:
        return judged[key] >= case["target"] if at_least else judged[key] <= case["target"]

    word = "met" if met("median") else "missed"
    if word == "missed" and (met("lower_quartile") or met("upper_quartile")):
        word = "missed by less than the spread"
    aim = case["aim"]
    beyond = f"; aim {aim:g}: {'met' if judged['median'] >= aim else 'missed'}" if aim else ""
    return span(case["ratio"]), f"{target}: {word}{beyond}"


def _memory(case: dict[str, Any], ours: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the peaks of two sides, ours judged where there is a limit."""
    peaks = [each["peak_mib"] for each in (ours, other) if "peak_mib" in each]
    text = " / ".join(f"{peak:.0f}" for peak in peaks)
    if not peaks or not case["most_mib"]:
        return text
    return (
        f"{text} (≤ {case['most_mib']:.0f}: {'met' if peaks[0] <= case['most_mib'] else 'missed'})"
    )


def _hours(tables: dict[str, Any]) -> str:
    target = tables["target"]
    rows = [
        [kind, *(span(each[key]) for key in ("ours", "plain", "ratio")),
         f"≥ {target:g}: {'met' if each['ratio']['median'] >= target else 'missed'}"]
        for kind, each in tables["hours"].items()
    ]  # fmt: skip
    headers = ["Tables 1 and 2, extrapolated", "ours, h", "plain, h", "ratio", "target"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _seconds_a_seed(tables: dict[str, Any]) -> str:
    measured = tables["seconds_a_seed"]
    rows = []
    for part in next(iter(measured.values())):
        row = [part, tables["epochs"].get(part, "")]
        for parts in measured.values():
            ours, plain = (median(parts[part][side]) for side in ("ours", "plain"))
            row.append(f"{ours:.3g} / {plain:.3g}")
        rows.append(row)
    headers = ["seconds a seed, ours / plain", "epochs", *measured]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _growth(growth: dict[str, Any]) -> str:
    rows = []
    for axis, points in growth.items():
        for point in points:
            ours, plain = (point[side]["median"] for side in ("ours", "plain"))
            rows.append([axis, point["value"], span(point["ours"]), span(point["plain"]),
                         f"{plain / ours:.2f}"])  # fmt: skip
    headers = ["grows", "to", "ours, s/epoch", "plain, s/epoch", "ratio"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def span(values: dict[str, Any]) -> str:
    """Return median and quartiles with three digits."""
    low, high = values["lower_quartile"], values["upper_quartile"]
    return f"{values['median']:.3g} ({low:.3g}–{high:.3g})"
