"""The networks of a run put together: frozen base, Meta ControlNet with its LoRAs, motion module, face embedder."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.models.arcface import load_face
from meta_animator.models.identifiers import new_identifiers, reserved_identifier
from meta_animator.models.manifest import check_manifest, check_parts, part_of
from meta_animator.models.motion import check_length
from meta_animator.models.precision import halve
from meta_animator.settings import ModelConfig
from meta_animator.weights import copy_strict, fingerprint, same_weights, short


class Assembly(nn.Module):
    """Weights are named control.<name>, lora.<task>.<name> and motion.<name>, in this order."""

    def __init__(self, config: ModelConfig, backbone: nn.Module, with_motion: bool = False, face: bool = False):
        super().__init__()
        self.config, self.backbone = config, backbone
        self.control = backbone.make_control(config.tasks, config.lora_rank)
        self.motion = backbone.with_motion(config.motion_max_seq_length) if with_motion else None
        self.face = load_face(config.face) if face else None
        self.identifiers: dict[str, str] = {}
        self.shared_noise: float | None = None  # of the motion module's training, where it says so
        self._exact: dict[str, Tensor] = {}

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
        return state

    def load(self, state: Mapping[str, Tensor], what: str, parts: Iterable[str] | None = None) -> None:
        """Copy weights in, by name.

        parts   what `state` must hold, no more and no less: control, lora.<task>, motion; by default those that it holds
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
        halve(self.control, dtype)
        if self.motion is not None:
            halve(self.motion, dtype)
        self.backbone.hold_frozen_in(dtype)

    def load_control(
        self, manifest: Mapping[str, Any], state: Mapping[str, Tensor], what: str, fresh_loras: bool = False
    ) -> None:
        """Shared weights and the LoRAs of this run's tasks, which may be a subset of the checkpoint's.

        fresh_loras   LoRAs of tasks that the checkpoint does not have stay as they were made, which is said
        """
        check_manifest(manifest, what)
        self._check_base(manifest, what)
        if not any(n.startswith("control.") for n in state):
            raise UserError(f"{what}: holds no Meta ControlNet; give a stage-0 or stage-2 run")
        self.check_conventions(manifest, what)
        check_parts(manifest, state, what)
        known = [task for task in self.config.tasks if task in manifest["tasks"]]
        if missing := [task for task in self.config.tasks if task not in known]:
            said = f"{what}: has no LoRA for {', '.join(missing)} (it has {', '.join(manifest['tasks']) or 'none'})"
            if not fresh_loras:
                raise UserError(f"{said}; set model.tasks to a subset")
            print(f"note: {said}; {'it starts' if len(missing) == 1 else 'they start'} fresh")
        if manifest["lora_rank"] != self.config.lora_rank and known:
            raise UserError(f"{what}: LoRA rank {manifest['lora_rank']}, this run's model.lora_rank is {self.config.lora_rank}")
        wanted = {"control", *(f"lora.{task}" for task in known)}
        self.load({n: p for n, p in state.items() if part_of(n) in wanted}, what, wanted)
        self.identifiers.update(manifest.get("identifiers", {}))

    def load_motion(self, manifest: Mapping[str, Any], state: Mapping[str, Tensor], what: str) -> None:
        """The motion module of a stage-1 run. Raises UserError where it was trained on another base, with another noise schedule
        or on fewer frames."""
        check_manifest(manifest, what)
        self._check_base(manifest, what)
        motion = {n: p for n, p in state.items() if n.startswith("motion.")}
        if not motion:
            raise UserError(f"{what}: holds no motion module; give a stage-1 run")
        trained_with, own = manifest.get("beta_schedule", ""), self.config.beta_schedule
        if trained_with != own:
            raise UserError(
                f"{what}: was trained with model.beta_schedule '{trained_with}', this run has '{own}' ('' is the base's own); "
                "set the same"
            )
        check_length(manifest.get("motion_max_seq_length"), self.config.motion_max_seq_length, what)
        self.load(motion, what, {"motion"})
        self.shared_noise = manifest.get("shared_noise")

    def _check_base(self, manifest: Mapping[str, Any], what: str) -> None:
        own, other = self.backbone.fingerprint(), manifest["base"]
        if not same_weights(other, own):
            raise UserError(f"{what}: was trained on base {short(other)}, {self.config.base} is base {short(own)}")

    def check_conventions(self, manifest: Mapping[str, Any], what: str) -> None:
        """Raises UserError where the control network was trained on condition images of another range."""
        own = self.config.condition_range
        if (theirs := manifest.get("condition_range", own)) != own:
            raise UserError(
                f"{what}: was trained with model.condition_range '{theirs}', this run has '{own}'; set "
                f"model.condition_range={theirs}"
            )

    def note_posterior(self, manifest: Mapping[str, Any], what: str) -> None:
        """Say where training goes on with other latents of the condition images; sampling takes the mode in either case."""
        own = self.config.condition_posterior
        if (theirs := manifest.get("condition_posterior", own)) != own:
            without_cache = " data.cache_latents=false (a cache cannot hold draws)" if theirs == "sample" else ""
            print(
                f"note: {what} was trained with model.condition_posterior '{theirs}', this run has '{own}'; to train as it was, "
                f"set model.condition_posterior={theirs}{without_cache}"
            )

    def keep_identifiers(self, own: Mapping[str, str]) -> None:
        """Identifiers that this run has given already; they win over those of the checkpoint that it started from."""
        words = set(own.values())
        self.identifiers = {name: word for name, word in self.identifiers.items() if word not in words} | dict(own)

    def name_people(self, identities: list[str], person: str = "") -> None:
        """Give every identity without an identifier one of its own; known ones keep theirs. person: whom a stage 2 learns."""
        words, given = self.backbone.rare_words(), self.identifiers
        new = [name for name in dict.fromkeys(identities) if name not in given and name != person]
        given.update(zip(new, new_identifiers(words, given.values(), len(new)), strict=True))
        if shared := sum(" " in given[name] for name in new):
            print(f"note: {shared} people share the words of their identifiers: the tokenizer has {len(words)} rare words")
        if person and person not in given:
            given[person] = reserved_identifier(words, given.values())

    def manifest(self) -> dict[str, Any]:
        return {
            "base": self.backbone.fingerprint(),
            "tasks": list(self.config.tasks),
            "lora_rank": self.config.lora_rank,
            "beta_schedule": self.config.beta_schedule,
            "condition_range": self.config.condition_range,
            "condition_posterior": self.config.condition_posterior,
            **({} if self.motion is None else {"motion_max_seq_length": self.config.motion_max_seq_length}),
            "identifiers": dict(self.identifiers),
        }

    def control_fingerprint(self) -> str:
        return fingerprint(self.control.base_state())

    # faces

    @property
    def embed_face(self):
        return None if self.face is None else self.face.embed_face

    def usable_faces(self, landmarks: Tensor | None, visible: Tensor | None) -> Tensor | None:
        """Faces that are seen and large enough for the embedder; same shape as `visible`."""
        if self.face is None or visible is None:
            return visible
        return visible & self.face.large_enough(landmarks.flatten(0, -3)).view(visible.shape)

    def enable_gradient_checkpointing(self) -> None:
        self.control.net.enable_gradient_checkpointing()
        self.backbone.enable_gradient_checkpointing()
