"""What a run would train and need, counted on the meta device: architecture files only, no weights, no memory."""

from collections import Counter

import torch

from meta_animator.devices import unusable
from meta_animator.errors import UserError
from meta_animator.models.assembly import part_of
from meta_animator.settings import RunConfig
from meta_animator.stages.memory import GIB, advice, count, measure, stage_without_weights


def describe(config: RunConfig, free_gib: float | None = None, measured: bool = False) -> str:
    """Trainable parameters by group, the memory that a run needs at its peak, and what would make it fit.

    free_gib  what there is; None: what is free on this machine's GPU, if it has one
    measured  also take a step on random weights and say by how much the count is off
    """
    if config.stage == "extract":
        return "extract trains nothing and needs no GPU"
    lines = []
    if config.stage != "sample":
        rows = trainable_parameters(config)
        lines += ["trainable parameters", *(f"{name:<24}{number:>15,}" for name, number in rows.items())]
        lines += [f"{'total':<24}{sum(rows.values()):>15,}", ""]
    memory = count(config)
    lines.append(memory.table())
    if free_gib is None and torch.cuda.is_available():
        free_gib = torch.cuda.mem_get_info()[0] / GIB
    if free_gib is not None:
        lines.append(f"free: {free_gib:.1f} GiB, " + ("it fits" if memory.total <= free_gib * GIB else "it does NOT fit"))
        for line in advice(config, round(free_gib * GIB)):
            lines.append(f"  {line}")
    elif reason := unusable():
        lines.append(f"note: {reason}")
    if measured:
        found, counted = measure(config), memory.total - memory.parts.get("CUDA itself (allowance)", 0)
        where = "GPU" if torch.cuda.is_available() else "CPU"
        lines.append(
            f"measured on this {where}, one step on random weights: {found / GIB:.2f} GiB; counted {counted / GIB:.2f}, "
            f"{100 * (counted / found - 1):+.0f} %"
        )
    return "\n".join(lines)


def trainable_parameters(config: RunConfig) -> dict[str, int]:
    """{part: number of parameters} of a training stage. Raises UserError for stages that train nothing of stages 0 to 2."""
    if config.stage in ("sample", "extract"):
        return {}
    if config.stage.startswith("base_"):
        raise UserError(f"--dry-run: counts stages 0 to 2, not '{config.stage}'")
    counts: Counter[str] = Counter()
    for group in stage_without_weights(config).param_groups():
        for name, parameter in group.parameters.items():
            counts[part_of(name).replace(".", " ")] += parameter.numel()
    return dict(counts)
