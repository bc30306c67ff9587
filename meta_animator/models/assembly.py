"""The networks of a run put together: frozen base, Meta ControlNet with its LoRAs, motion module, the person's LoRA on the base,
face embedder."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from meta_animator.fingerprints import fingerprint
from meta_animator.models.arcface import load_face
from meta_animator.models.compiling import compile_blocks
from meta_animator.models.person import PersonLoRA
from meta_animator.models.precision import halve
from meta_animator.settings import ModelConfig
from meta_animator.weights import copy_strict


def part_of(name: str) -> str:
    """The part that a weight belongs to: control, motion, person, or lora.<task>."""
    pieces = name.split(".")
    return ".".join(pieces[:2]) if pieces[0] == "lora" else pieces[0]


class Assembly(nn.Module):
    """Weights are named control.<name>, lora.<task>.<name>, motion.<name> and person.<name>, in this order."""

    def __init__(
        self, config: ModelConfig, backbone: nn.Module, with_motion: bool = False, face: bool = False, with_person: bool = False
    ):  # fmt: skip
        super().__init__()
        self.config, self.backbone = config, backbone
        self.control = backbone.make_control(config.tasks, config.lora_rank)
        self.motion = backbone.with_motion(config.motion_max_seq_length) if with_motion else None
        self.person = PersonLoRA(backbone, config.person_lora_rank) if with_person and config.person_lora_rank else None
        self.face = load_face(config.face) if face else None
        self.identifiers: dict[str, str] = {}  # given by models/identifiers.py
        self.shared_noise: float | None = None  # of the motion module's training, where it says so
        self.trained_frames: int | None = None  # of its clips, likewise
        self._exact: dict[str, Tensor] = {}
        self._names: dict[str, str] = {}  # fingerprints of parts whose values are rounded and kept nowhere else

    # weights by name

    def state(self) -> dict[str, Tensor]:
        """Every weight that a checkpoint may store, as exact as it was loaded."""
        return self._live_state() | self._exact

    def _live_state(self) -> dict[str, Tensor]:
        state = {f"control.{n}": p for n, p in self.control.base_state().items()}
        for task in self.control.bank.tasks:
            state |= {f"lora.{task}.{n}": p for n, p in self.control.bank.state(task).items()}
        if self.motion is not None:
            state |= {f"motion.{n}": p for n, p in self.motion.named_parameters()}
        if self.person is not None:
            state |= {f"person.{n}": p for n, p in self.person.named_parameters()}
        return state

    def load(self, state: Mapping[str, Tensor], what: str, parts: Iterable[str] | None = None) -> None:
        """Copy weights in, by name.

        parts   what `state` must hold, no more and no less: control, lora.<task>, motion, person; by default those that it holds
        Raises UserError where a weight of these parts is missing, or another is there.
        """
        own = self.state()
        wanted = set(map(part_of, state)) if parts is None else set(parts)
        copy_strict({n: p for n, p in own.items() if part_of(n) in wanted}, state, what)
        if self._exact:
            with torch.no_grad():
                for name, live in self._live_state().items():
                    if name in self._exact:
                        live.copy_(self._exact[name])

    def hold_frozen_in(self, dtype: torch.dtype, keep_exact: bool = True) -> None:
        """What is not trained holds and computes in `dtype`, a half, from now on.

        The VAE's encoder stays in float32, since latents are data, and so do its decoder's weights beside float16, which it
        can overflow (training decodes under autocast even so). keep_exact: what `state` gives of such weights keeps their
        float32 values, in main memory.
        """
        frozen = {name: weight for name, weight in self._live_state().items() if not weight.requires_grad}
        if keep_exact:
            self._exact = {name: weight.detach().cpu() for name, weight in frozen.items() if not weight.is_meta}
        elif dtype != torch.float16:  # whose rounding no name knows of
            self._names = {part: self.fingerprint(part) for part in {part_of(name) for name in frozen}}
        halve(self.control, dtype, getattr(self.control, "precise", ()))
        if self.motion is not None:
            halve(self.motion, dtype)
        self.backbone.hold_frozen_in(dtype)

    def fingerprint(self, part: str) -> str:
        """Names the weights of a part (control, motion, lora.<task>) as they were loaded."""
        own = {n.removeprefix(f"{part}."): w for n, w in self.state().items() if n.startswith(f"{part}.")}
        return self._names.get(part) or fingerprint(own)

    # faces

    @property
    def embed_face(self):
        return None if self.face is None else self.face.embed_face

    def usable_faces(self, landmarks: Tensor | None, visible: Tensor | None) -> Tensor | None:
        """Faces that are seen and large enough for the embedder; same shape as `visible`."""
        if self.face is None or visible is None:
            return visible
        return visible & self.face.large_enough(landmarks.flatten(0, -3)).view(visible.shape)

    def compile_blocks(self) -> int:
        """Compile the repeated blocks of all that denoises; how many these are."""
        base = [part for name, part in self.backbone.named_children() if name != "vae"]
        return compile_blocks([*base, self.control, *([] if self.motion is None else [self.motion])])

    def enable_gradient_checkpointing(self) -> None:
        self.control.enable_gradient_checkpointing()
        self.backbone.enable_gradient_checkpointing()
