"""A measurement as JSON and as text, and two of them side by side."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from meta_animator.benchmark.machine import facts
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.settings import RunConfig

VERSION = 1  # of the JSON
LEFT_OUT = ("values", "operators", "loss", "shape", "matmul_flops_per_second")  # of what two reports are compared by
SAME = ("device", "threads", "flags", "variables", "versions", "revision")  # what is said where two machines differ in it


def report(command: str, numbers: Mapping[str, Any], config: RunConfig | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON: what was asked, of which settings, on what machine, and the numbers of commands.py."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # told, not used
    settings = None if config is None else dataclasses.asdict(config)
    return {
        "benchmark": VERSION, "command": command, "asked": dict(asked), "settings": settings, "machine": facts(device), **numbers,
    }  # fmt: skip


def text(report: Mapping[str, Any]) -> str:
    """What a person wants to know of it first."""
    machine = report["machine"]
    lines = [f"{machine['device']}, {machine['threads']} threads, load {machine['load']}, torch {machine['versions']['torch']}"]
    for name, numbers in report["results"].items():
        lines += [f"{name}:", *(f"  {line}" for line in _lines(numbers))]
    for name, spread in report["against"].items():
        rival = report["asked"]["against"]
        lines.append(
            f"{name}: {rival} takes {spread['median']:.3f} x the time of ours "
            f"(quartiles {spread['lower_quartile']:.3f}, {spread['upper_quartile']:.3f}; {len(spread['values'])} pairs)"
        )
    return "\n".join(lines)


def _lines(numbers: Mapping[str, Any]) -> Iterator[str]:
    for part, spent in numbers.get("milliseconds", {}).items():
        yield f"{part:<22}{spent:>8.1f} ms"
    if "seconds" in numbers:
        spread = numbers["seconds"]
        yield (
            f"{spread['median']:.4g} s, the median of {len(spread['values'])} "
            f"(quartiles {spread['lower_quartile']:.4g}, {spread['upper_quartile']:.4g})"
        )
    for key in numbers:
        if key.endswith("_per_second") and not key.startswith("matmul"):
            yield f"{numbers[key]:.4g} {key.removesuffix('_per_second')}/s"
    if "image_terms" in numbers:
        yield f"{'with' if numbers['image_terms'] else 'without'} image terms (they begin at loss.start_step)"
    if numbers.get("seconds_waiting_for_data"):
        yield f"{numbers['seconds_waiting_for_data']:.4g} s of it waiting for data"
    if memory := numbers.get("memory"):
        yield f"{memory['peak'] / 2**30:.2f} GiB at the peak, {memory['at_rest'] / 2**30:.2f} before a step"
    if counts := numbers.get("counts"):
        total, parts = counts["total"], (f"{name} {one['calls']:,}" for name, one in counts.items() if name != "total")
        yield f"{total['calls']:,} operator calls ({', '.join(parts)}): {total['views']:,} views, {total['casts']:,} casts"
        yield f"{total['host_reads']:,} values that the host waits for"
    for key in numbers:
        if key.startswith("flops_per_"):
            yield f"{numbers[key] / 1e12:.4g} TFLOP per {key.removeprefix('flops_per_')}"
    if numbers.get("launches"):
        yield ", ".join(f"{count:,} {kind} launched" for kind, count in numbers["launches"].items())
    if "utilisation" in numbers:
        speed = numbers["matmul_flops_per_second"]
        yield f"{numbers['utilisation']:.1%} of the {speed / 1e9:,.0f} GFLOP/s that a matrix product has here"


def compare(first: Path, second: Path) -> str:
    """A table of the numbers that two reports have in common, and the second's over the first's; before it, in what their
    settings and machines differ. Raises UserError for what is no report, or one of something else."""
    a, b = (_read(path) for path in (first, second))
    if a["command"] != b["command"]:
        raise UserError(f"--compare: {first} measured {a['command']}, {second} {b['command']}; expected two of one kind")
    lines = [f"note: {line}" for line in differences(a, b)]
    rows = ratios(a, b)
    if not rows:
        raise UserError(f"--compare: {first} and {second} have no number in common")
    width = max(map(len, rows)) + 2
    lines.append(f"{'':<{width}}{'first':>14}{'second':>14}{'second/first':>14}")
    for name, (one, other, quotient) in rows.items():
        lines.append(f"{name:<{width}}{one:>14,.5g}{other:>14,.5g}{'-' if quotient is None else f'{quotient:.3f}':>14}")
    return "\n".join(lines)


def ratios(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[float, float, float | None]]:
    """{name: (in a, in b, b / a)} of the numbers that two reports have in common; no ratio where a has 0."""
    one, other = (dict(_numbers({"": report["results"], "ratio": report["against"]})) for report in (a, b))
    common = {name: (one[name], other[name]) for name in one if name in other}
    return {name: (x, y, y / x if x else None) for name, (x, y) in common.items() if x or y}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """A line for each setting, fact of the machine, and option that two reports differ in."""
    lines = []
    for section in ("settings", "machine", "asked"):
        one, other = (dict(_leaves(report[section] or {})) for report in (a, b))
        for key in dict.fromkeys([*one, *other]):
            if one.get(key) != other.get(key) and (section != "machine" or key.partition(".")[0] in SAME):
                lines.append(f"{key}: {one.get(key)}, {other.get(key)}")
    return lines


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in _leaves(values, prefix):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested mappings."""
    for name, value in values.items():
        path = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _leaves(value, path)
        elif name not in LEFT_OUT:
            yield path, value


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict) or found.get("benchmark") != VERSION:
        raise UserError(f"{path}: is no report of scripts/bench.py (--json)")
    return found
