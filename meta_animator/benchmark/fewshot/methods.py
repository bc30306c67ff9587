"""The contestants: what is compared with fine-tuning as it is shipped, and that with one part left out or added."""

import dataclasses

from meta_animator.errors import UserError
from meta_animator.settings import TASKS

FOREGROUND = ("dwpose", "pose_hamer", "depth", "normal", "seg", "fg_inpainting")
BACKGROUND = ("bg_outpainting",)
GLOBAL = ("canny", "blurred")
POSE = "dwpose"  # what stage 3 samples with
PHOTOS = ("first_photo", "nearest_photo")  # made of the photos alone
FULL = "meta_animator"
NO_PERSON = "model.person_lora_rank=0"  # nothing learns in the base


def _without(tasks: tuple[str, ...]) -> tuple[str, ...]:
    return (f"model.tasks=[{','.join(task for task in TASKS if task not in tasks)}]",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Settings on top of those of stage 2 and stage 3.

    says     in the report
    tunes    whether stage 2 runs; where not, stage 3 starts from the stage 0 that is shipped
    others   whether stage 2 also sees frames of other people, the auxiliary sets
    lora     a LoRA of the UNet learns the person, without control, and stage 0's control network is put on top (DreamBooth)
    """

    name: str
    says: str
    tunes: bool = True
    others: bool = False
    lora: bool = False
    stage2: tuple[str, ...] = ()
    stage3: tuple[str, ...] = ()

    @property
    def training(self) -> str:
        """Name of the method whose stage 2 this one samples from: its own, or that of fine-tuning as it is shipped."""
        return FULL if self.tunes and not self.stage2 and not self.others else self.name


METHODS = {
    method.name: method
    for method in (
        Method(name="first_photo", says="the first photo, all the time", tunes=False),
        Method(name="nearest_photo", says="the photo in the most similar pose", tunes=False),
        Method(name="stage0", says="stage 0, without fine-tuning", tunes=False, stage3=("sample.prompt=a person",)),
        Method(
            name="control_pose", says="a control network for the pose alone, fine-tuned by the latent error",
            stage2=(f"model.tasks=[{POSE}]", "data.task_weights={}", "loss.image_weight=0", NO_PERSON),
        ),
        Method(name="dreambooth", says="a LoRA of the UNet (DreamBooth) under stage 0's control network", tunes=False, lora=True),
        Method(name=FULL, says="stage 2 as it is shipped"),
        Method(name="no_flt", says="without the foreground tasks but the pose", stage2=_without(FOREGROUND[1:])),
        Method(name="no_blt", says="without the background task", stage2=_without(BACKGROUND)),
        Method(name="no_glt", says="without the global tasks", stage2=_without(GLOBAL)),
        Method(
            name="pose_only", says="all tasks but the pose left out", stage2=(f"model.tasks=[{POSE}]", "data.task_weights={}")
        ),
        Method(name="no_hybrid", says="without the image loss", stage2=("loss.image_weight=0",)),
        Method(name="no_face", says="without the face term", stage2=("loss.face_weight=0",)),
        Method(name="no_gate", says="image loss at every noise level", stage2=("loss.max_noise_level=1",)),
        Method(
            name="auxiliary", says="with 20 frames of other people, in a tenth of the draws", others=True,
            stage2=("data.auxiliary_sets=20", "data.auxiliary_fraction=0.1"),
        ),
        Method(name="no_person_lora", says="without the LoRA on the base", stage2=(NO_PERSON,)),
        Method(name="rank_4", says="the LoRA on the base of rank 4", stage2=("model.person_lora_rank=4",)),
        Method(name="rank_64", says="the LoRA on the base of rank 64", stage2=("model.person_lora_rank=64",)),
        Method(
            name="no_inversion", says="from noise instead of the inverted photo",
            stage3=("sample.init_noise=random", "sample.shared_noise=0", "sample.init_noise_scale=1"),
        ),
        Method(name="no_motion", says="without the motion module", stage3=("model.motion_from=",)),
        Method(name="no_stage0", says="a fresh control network: no stage 0", stage2=("model.control_from=",)),
        Method(name="lora_only", says="the LoRAs alone learn", stage2=("train.trainable=lora",)),
    )
}  # fmt: skip


def chosen(names: list[str]) -> list[Method]:
    """Raises UserError for a name that is none."""
    if unknown := [name for name in names if name not in METHODS]:
        raise UserError(f"--methods: '{unknown[0]}' is none; there are {', '.join(METHODS)}")
    return [METHODS[name] for name in names]
