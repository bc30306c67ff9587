"""Sampling ends where its latents stop being numbers: what follows would be a black video."""

from collections.abc import Mapping

from torch import Tensor, nn

from meta_animator.errors import UserError


def require_finite(latents: Tensor, what: str, networks: Mapping[str, nn.Module | None]) -> None:
    """Raises UserError where a value is not finite: `what` it is ("sampling, step 3 of 25"), and which weight of the networks
    {name: network} is to blame, if one is."""
    if bool(latents.isfinite().all()):
        return
    for name, network in networks.items():
        for weight, values in network.named_parameters() if network is not None else ():
            if not bool(values.isfinite().all()):
                raise UserError(f"{what}: the latents are not finite, as is the weight {weight} of the {name}; give another file")
    raise UserError(
        f"{what}: the latents are not finite, though all weights are; try train.mixed_precision=bf16 or no where it is fp16, "
        "a lower sample.guidance_scale, or other sample.loras weights"
    )
