"""Names of a Wan network's modules: as diffusers spells them, and as the original files, ComfyUI and most LoRAs do."""

import re
from collections.abc import Mapping

from torch import Tensor

OF_A_BLOCK = {  # diffusers: original
    "attn1": "self_attn", "attn2": "cross_attn", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o",
    "add_k_proj": "k_img", "add_v_proj": "v_img", "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
    "norm2": "norm3", "norm3": "norm2", "proj_in": "before_proj", "proj_out": "after_proj",
}  # fmt: skip
OUTSIDE = {
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
BLOCK = re.compile(r"((?:vace_)?blocks\.\d+)\.(.+)")
PART = re.compile("|".join(rf"(?<![^.]){re.escape(name)}(?![^.])" for name in OF_A_BLOCK))


def original_name(module: str) -> str:
    """Of a module of diffusers' WanTransformer3DModel or WanVACETransformer3DModel; one that both spell alike stays as it is."""
    if (found := BLOCK.fullmatch(module)) is None:
        return OUTSIDE.get(module, module)
    return f"{found[1]}.{PART.sub(lambda part: OF_A_BLOCK[part[0]], found[2])}"


def original_lora(lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{"diffusion_model.vace_blocks.0.self_attn.q.lora_A.weight": ...} of {"vace_blocks.0.attn1.to_q.lora_A.weight": ...}"""
    renamed = {}
    for name, weight in lora.items():
        module, half = name.split(".lora_")
        renamed[f"diffusion_model.{original_name(module)}.lora_{half}"] = weight
    return renamed
