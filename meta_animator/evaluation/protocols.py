"""What is compared how, written out, so that a number can be had again: `--protocol NAME` of scripts/evaluate.py.

The benchmark of DisCo (Wang et al. 2024) on TikTok dances, of which there are two families of numbers. Both take ten clips that
no training saw, two of TikTok's (Jafarian and Park 2021) and eight that DisCo added, its validation set `new10val_TiktokDance`;
its frames are named TiktokDance_<id>_<number>, and the ids are those that programs which follow it list. The middle square of
every frame at 256 x 256; the first frame is the reference photo; all frames are compared, the first one too, and the mean is
over all frames of all clips.

`tiktok-disco-historical`: as DisCo's code was in 2023 (Wangt-CN/DisCo, tool/metrics, first commit), which later tables go on
from. SSIM of gray frames; L1 divided by height x width once more; LPIPS of VGG, of pixels in [0, 1]; PSNR of 8-bit differences
that overflow, with the right one beside it (the tables' PSNR*). FID-VID and FVD over all windows of 16 frames but the last of a
clip, which were written as GIFs of 3 frames a second and read back by ffmpeg at 24, so that each frame counts eight times (issue
36 there). Not followed: the GIF's 256 colours, and the resizing of pytorch-fid, which differs a little from TensorFlow's.

`tiktok-disco`: the same clips and frames, with every metric as it is defined. SSIM and L1 over RGB in 8-bit steps, LPIPS of
AlexNet in [-1, 1], PSNR in float, FID-VID and FVD over all windows of 16 consecutive frames.

`cross-identity` has no truth: one person's photos, another one's motion. Faces are compared with the reference photos, poses with
the driving film's. How much changes from frame to frame is measured in the generated clip alone, its motion included: in the
whole frame, and where nobody is.
"""

import dataclasses
from typing import Literal

from meta_animator.errors import UserError
from meta_animator.evaluation.features import Windows
from meta_animator.evaluation.frames import Mode

DISCO_CLIPS = (
    "00337", "00338", "201_002_1x1", "201_005_1x1", "201_021_1x1", "201_024_1x1", "202_006_1x1", "202_007_1x1", "202_025_1x1",
    "203_006_1x1",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way of comparing clips.

    clips            names of the clips that make the set; empty: all that there are
    size             (height, width) that the middle of every frame is brought to; None: as they are
    fps              of the clips, for the record
    reference_frame  which frame of a clip is the reference photo, and compared all the same; None: photos from elsewhere
    mode             of `frames.frame_scores`: the units of SSIM, L1, LPIPS and PSNR
    lpips            trunk of LPIPS
    windows          how clips are cut for FID-VID and FVD
    average          whether each clip counts as much, or each frame
    truth            whether there are true frames; otherwise a driving film takes their place
    """

    name: str
    clips: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    fps: float | None = None
    reference_frame: int | None = None
    mode: Mode = "standard"
    lpips: str = "alex"
    windows: Windows = Windows()
    average: Literal["clips", "frames"] = "clips"
    truth: bool = True


_TIKTOK = Protocol(name="tiktok-disco", clips=DISCO_CLIPS, size=(256, 256), fps=30.0, reference_frame=0, average="frames")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="default"),
        _TIKTOK,
        dataclasses.replace(
            _TIKTOK, name="tiktok-disco-historical", mode="disco_compat", lpips="vgg",
            windows=Windows(left_out=1, repeats=8),
        ),
        Protocol(name="cross-identity", truth=False),
    )
}  # fmt: skip


def find_protocol(name: str) -> Protocol:
    """Raises UserError for a name that is not there."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name}: no such protocol; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
