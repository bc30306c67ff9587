"""What a comparison says for others: a record with the name of all that it depends on, and a row for a table."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from meta_animator import __version__
from meta_animator.evaluation.protocols import Protocol

PACKAGES = ("numpy", "torch", "torchvision", "lpips", "opencv-python", "opencv-python-headless", "pillow", "av", "torch-fidelity")
HASH_DIGITS = 12
COLUMNS = {  # metric: (heading, whether more is better, decimals)
    "ssim": ("SSIM", True, 3), "psnr": ("PSNR", True, 2), "psnr_overflow": ("PSNR (overflow)", True, 2), "l1": ("L1", False, 3),
    "lpips": ("LPIPS", False, 3), "person_psnr": ("person PSNR", True, 2), "face_psnr": ("face PSNR", True, 2),
    "face_similarity": ("face", True, 3), "pose_error": ("pose %", False, 2), "pose_missing": ("pose missing", False, 3),
    "flicker": ("flicker", False, 2), "change": ("change", None, 2), "background_change": ("background change", False, 2),
    "fid": ("FID", False, 1), "fid_vid": ("FID-VID", False, 1), "fvd": ("FVD", False, 1),
}  # fmt: skip


def record(
    result: Mapping[str, Any], protocol: Protocol, weights: Mapping[str, str], missing: Mapping[str, str]
) -> dict[str, Any]:
    """`comparison.compare`'s result with the protocol, the versions and the weights {name: sha256 or version} that it depends on,
    a `hash` of these three, and the metrics that are `missing`, with the reason."""
    depends = {"protocol": dataclasses.asdict(protocol), "versions": versions(), "weights": dict(weights)}
    return {"hash": named(depends), **depends, "missing": dict(missing), **result}


def named(depends: Mapping[str, Any]) -> str:
    """The same for the same protocol, versions and weights, and else another: 12 hex digits."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]


def versions() -> dict[str, str]:
    """Of this program, Python, and the libraries that take part in a number; those that are there."""
    found = {"meta-animator": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def row(record: Mapping[str, Any], name: str, style: str) -> str:
    """One row, with its heading, in the style "markdown" or "latex": means, half the width of their interval beside them, and the
    hash."""
    values = {metric: summary for metric, summary in record["mean"].items() if summary["mean"] is not None}
    values |= {metric: {"mean": value, "low": None} for metric, value in record["set"].items() if value is not None}
    shown = [metric for metric in COLUMNS if metric in values]
    arrows = {True: ("↑", r"$\uparrow$"), False: ("↓", r"$\downarrow$"), None: ("", "")}
    latex = style == "latex"
    heads = ["", *(f"{COLUMNS[metric][0]} {arrows[COLUMNS[metric][1]][latex]}".strip() for metric in shown), "protocol, hash"]
    cells = [name, *(_cell(values[m], COLUMNS[m][2], latex) for m in shown), f"{record['protocol']['name']}, {record['hash']}"]
    if latex:
        lines = ([part.replace("%", r"\%").replace("_", r"\_") for part in line] for line in (heads, cells))
        return "\n".join(" & ".join(line) + r" \\" for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), cells))


def _cell(summary: Mapping[str, Any], decimals: int, latex: bool) -> str:
    mean = summary["mean"]
    digits = f".{decimals}f" if abs(mean) >= 10**-decimals or mean == 0 else ".2e"
    if summary["low"] is None:
        return f"{mean:{digits}}"
    half = (summary["high"] - summary["low"]) / 2
    return f"{mean:{digits}} {'$' + chr(92) + 'pm$' if latex else '±'} {half:{digits}}"
