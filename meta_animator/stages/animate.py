"""The whole way in one go: photos and a film are prepared, the person is learned (stage 2), the motion sampled (stage 3).

<root>/<person>/photos            the photos as a data set
<root>/<person>/tuned-<digest>    the fine-tuned run; the digest is of the photos and of the settings
<root>/<person>/photos.txt        where the photos came from
<root>/<person>/videos/<motion>   what stage 3 writes, per motion
<root>/motions/<motion>-<digest>  a motion's film as a data set, for everybody
"""

import dataclasses
import functools
import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator.checkpoints.files import list_checkpoints
from meta_animator.config import is_used, load_config, to_yaml
from meta_animator.data.clips import Clip, read_keypoints
from meta_animator.data.keypoints import BODY, VISIBLE, five_points
from meta_animator.data.manifest import is_data_set, read_manifest
from meta_animator.data.motion_kinds import kind_of
from meta_animator.errors import UserError
from meta_animator.files import whole_file
from meta_animator.json_files import read_json
from meta_animator.media.images import PHOTO_SUFFIXES
from meta_animator.media.timeline import LOWEST
from meta_animator.media.video import VideoSource
from meta_animator.published import check_base
from meta_animator.sampling.opening import open_driving
from meta_animator.settings import RunConfig, TrainConfig
from meta_animator.stages.animate_sheet import animation_sheet
from meta_animator.stages.clock import Clock
from meta_animator.training.signals import run_to_its_end
from meta_animator.training.watch import Watch
from meta_animator.values import list_argument

PHOTOS_OF_A_FILM = 16  # frames that are taken of a film of the person, evenly
FEWEST = 5  # photos from which a person is learned well
FACE_WORTH = 0.5  # of a usable face beside the body, where a reference photo is chosen
ALL_FRAMES = (  # a motion is not to be cut where a frame is blurred or a head leaves the picture
    "--limits", "min_height=0", "min_share=0", "min_seen=0", "need_head=false", "min_sharpness=0", "blur_ratio=0",
)  # fmt: skip
OWNER = "photos.txt"  # in a person's folder: the path of the photos
OWN_KEYS = ("output_dir", "data.train", "sample.reference", "sample.driving", "sample.driving_clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What to make from what, as `scripts/animate.sh --help` says it."""

    photos: Path
    motion: Path
    output: Path | None
    overrides: Sequence[str]
    configs: Path
    root: Path
    person: str = ""
    annotators: str = "light"
    weights: Path | None = None
    same_person: bool = False
    started_in: str | None = None  # where relative paths of the overrides start, see `load_config`

    @property
    def name(self) -> str:
        """The person's name."""
        return self.person or self.photos.resolve().stem

    @functools.cached_property
    def home(self) -> Path:
        """The person's folder. Photos elsewhere of the same name are somebody else's, and get a folder of their own."""
        home = (self.root / _plain(self.name)).resolve()
        if not self.person and _owner(home) not in ("", str(self.photos.resolve())):
            home = home.with_name(f"{home.name}-{_digest([], str(self.photos.resolve()))[:6]}")
        return home

    @functools.cached_property
    def motion_name(self) -> str:
        """The motion's, with some letters of what tells it from others of its name."""
        paths = [self.motion] if self.motion.is_file() else []
        return f"{_plain(self.motion.resolve().stem)}-{_digest(paths, '' if paths else str(self.motion.resolve()))[:6]}"

    @functools.cached_property
    def target(self) -> Path:
        """Where the video goes."""
        return (self.output or self.home / f"{self.motion_name}.mp4").resolve()

    def config(self, step: str) -> Path:
        """The YAML of stage 2 or 3. Raises UserError where the folder has none."""
        for folder in (self.configs / "quickstart", self.configs):
            if (folder / f"{step}.yaml").is_file():
                return folder / f"{step}.yaml"
        known = "configs/demo, configs/sd15, configs/wan"
        raise UserError(f"CONFIG={self.configs}: holds no {step}.yaml; give one of {known}, or a folder with both")


def animate(job: Job) -> Path:
    """Do what is not done yet, and return the video's path. Raises UserError for what the user can mend, SystemExit with the
    code of a step that failed, which has said why."""
    tune = load_config(job.config("step2"), job.overrides, job.started_in)
    learned = [text for text in job.overrides if is_used(text, tune.stage)]  # how it is sampled changes nothing that is learned
    tune = load_config(job.config("step2"), learned, job.started_in)
    sample = load_config(job.config("step3"), job.overrides, job.started_in)
    kind = kind_of(job.motion)
    check_job(job, sample, kind)
    clock = Clock(job.root / "times.json", str(job.configs))
    clock.expect("photos", _count(job.photos))
    clock.expect("motion", _count(job.motion) if kind == "film" else 0)
    clock.expect("learning", tune.train.max_steps * tune.train.batch_size * tune.train.gradient_accumulation_steps)
    clock.expect("sampling", _frames(job.motion, kind) * sample.sample.num_inference_steps)

    clock.start("photos", f"who is it: {job.photos}")
    photos = prepare_photos(job)
    job.home.mkdir(parents=True, exist_ok=True)
    (job.home / OWNER).write_text(f"{job.photos.resolve()}\n", encoding="utf-8")
    clock.start("motion", f"how do they move: {job.motion}")
    driving, clip = prepare_motion(job, kind)
    clock.start("learning", f"learning {job.name} (stage 2)")
    run = learn(job, tune, photos, clock)
    clock.start("sampling", f"{job.name} in that motion (stage 3)")
    video = perform(job, sample, photos, run, driving, clip)
    clock.stop()
    print(f"\nthe animation:                 {video}")
    print(f"photos, motion and result:     {video.with_suffix('.png')}")
    print(f"took {clock.words()}; another motion of {job.name} starts from what is learned now")
    return video


def check_job(job: Job, sample: RunConfig, kind: str) -> None:
    """Raises UserError for what would else be told after the person is learned, or would cost the user a file."""
    if not job.photos.exists():
        raise UserError(f"{job.photos}: no such file or folder; give a folder of photos of one person, or a film")
    for text in job.overrides:
        if (key := text.partition("=")[0].strip()) in OWN_KEYS:
            raise UserError(f"argument '{text}': animate.sh sets {key} itself; leave it out, or run the stages one by one")
    check_base(Path(sample.model.base))
    if job.target.suffix.lower() != ".mp4":
        raise UserError(f"{job.target}: videos are written as MP4; give a name that ends in .mp4")
    if job.target.exists() and (job.target == job.motion.resolve() or not is_generated(job.target)):
        raise UserError(f"{job.target}: exists and was not made by this program; give another name for the video")
    if not job.target.exists() and job.target.with_suffix(".png").exists():
        raise UserError(f"{job.target.with_suffix('.png')}: exists, and would be replaced; give another name for the video")
    if job.same_person and kind not in ("film", "data set"):
        raise UserError(f"--same-person: {job.motion} has no frames to compare with; leave it out")
    if kind in ("keypoints", "data set"):
        size = sample.data.height, sample.data.width
        open_driving(str(job.motion), "", list(sample.sample.tasks), size, own_fps=sample.sample.driving_fps)


def is_generated(video: Path) -> bool:
    """Whether a film's file says that this program made it."""
    import av

    try:
        with av.open(str(video)) as container:
            return container.metadata.get("comment", "").startswith("Generated by Meta-Animator")
    except av.FFmpegError:
        return False


def prepare_photos(job: Job) -> Path:
    """The person's data set; what is given if that is one."""
    if is_data_set(job.photos):
        return job.photos.resolve()
    target, more = job.home / "photos", ["--keep-alike"]
    if job.photos.is_file() and job.photos.suffix.lower() not in PHOTO_SUFFIXES:
        film = VideoSource(job.photos)
        rate = max(LOWEST, min(film.timeline.rate, PHOTOS_OF_A_FILM / max(film.timeline.duration, 1e-3)))
        more += ["--fps", f"{rate:.4f}", "--least", "1"]
        film.close()
    _prepare(job, job.photos, target, ["--identity", job.name, *more])
    count = sum(clip.num_frames for clip in read_manifest(target) if clip.split == "train")
    if count < FEWEST:
        print(f"note: {count} photos of {job.name}; with fewer than {FEWEST}, what they do not show is made up")
    return target


def prepare_motion(job: Job, kind: str) -> tuple[Path, str]:
    """(data set or file that drives, its clip): the longest clip of a film."""
    if kind in ("keypoints", "drawn"):
        return job.motion.resolve(), ""
    folder = job.motion.resolve()
    if kind == "film":
        folder = (job.root / "motions" / job.motion_name).resolve()
        _prepare(job, job.motion, folder, ["--identity", _plain(job.motion.stem), *ALL_FRAMES])
    clips = [clip for clip in read_manifest(folder) if "keypoints" in clip.layers or clip.conditions]
    if not clips:
        raise UserError(f"{job.motion}: no clip with keypoints or drawn poses to drive from")
    longest = max(clips, key=lambda clip: clip.num_frames / clip.fps)
    if len(clips) > 1:
        print(f"note: {job.motion}: of {len(clips)} scenes the longest drives ({longest.id}, {longest.num_frames} frames)")
    return folder, longest.id


def learn(job: Job, config: RunConfig, photos: Path, clock: Clock) -> Path:
    """The fine-tuned run on these photos with these settings, trained unless it is there."""
    clips = [clip for clip in read_manifest(photos) if clip.split == config.data.split]
    if not clips:
        raise UserError(f"{photos}: holds no photo to learn from")
    told = [text for text in job.overrides if is_used(text, config.stage)]
    learned = dataclasses.replace(config, model=dataclasses.replace(config.model, tiny_vae=""))  # nothing is learned of it
    digest = _digest([], "\n".join([to_yaml(learned), *(f"{clip.id} {clip.prompt} {clip.stamp()}" for clip in clips)]))
    run = job.home / f"tuned-{digest[:8]}"
    if is_learned(run, config.train):
        print("learned already")
        clock.skip()
        return run
    if others := [path.name for path in job.home.glob("tuned-*") if path != run]:
        print(f"note: photos or settings differ from those of {', '.join(others)}, which {'are' if others[1:] else 'is'} kept")
    able = set.intersection(*(set(clip.available_tasks()) for clip in clips))
    tasks = [task for task in config.model.tasks if task in able]
    if left := [task for task in config.model.tasks if task not in able]:
        print(f"note: left off: {', '.join(left)}, which nothing in {photos} shows")
    own = [f"output_dir={run}", f"data.train={list_argument([photos])}", f"data.cache_dir={job.home / 'cache'}"]
    own += texts_of(job, config)
    _run("launch.py", "scripts/train.py", str(job.config("step2")), *told, *own, f"model.tasks=[{','.join(tasks)}]")
    return run


def texts_of(job: Job, config: RunConfig) -> list[str]:
    """Where embedded prompts are kept, which tell of the person: in their folder, where the config keeps them at all and the user
    has named no place."""
    named = any(text.partition("=")[0].strip() == "model.text_cache" for text in job.overrides)
    return [f"model.text_cache={job.home / 'texts'}"] if config.model.text_cache and not named else []


def is_learned(run: Path, train: TrainConfig) -> bool:
    """Whether a run has come to its end: its last step, or that at which it stopped early."""
    done = list_checkpoints(run)
    if not done or done[-1].name == f"step-{train.max_steps:06d}":
        return bool(done)
    return Watch(train.early_stop, read_json(done[-1] / "manifest.json").get("meters")).over


def perform(job: Job, config: RunConfig, photos: Path, run: Path, driving: Path, clip: str) -> Path:
    """Sample, and put the video and a sheet of photos, motion and result where they are wanted."""
    folder, target = job.home / "videos" / job.motion_name, job.target
    reference = best_reference(read_manifest(photos), _seen(driving, clip))
    own = [
        f"output_dir={folder}", f"model.control_from={run}", f"sample.reference={photos}", f"sample.reference_clip={reference}",
        f"sample.driving={driving}", f"sample.driving_clip={clip}",
    ]  # fmt: skip
    fit = f"sample.fit_pose={'no' if job.same_person else 'limbs'}"  # which the user may wish otherwise
    told = [text for text in job.overrides if is_used(text, config.stage)]
    own += texts_of(job, config)
    _run("sample.py", str(job.config("step3")), fit, *told, *own)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        shutil.copyfile(folder / config.sample.output, part)
    animation_sheet(photos, folder, driving, clip, target.with_suffix(".png"))
    if job.same_person:
        _run(
            "evaluate.py", str(folder), "--truth", str(driving), "--clip", clip, "--reference", str(photos),
            "--lpips", "off", "--output", str(folder),
        )  # fmt: skip
    return target


def best_reference(clips: Sequence[Clip], driven: np.ndarray) -> str:
    """The clip or photo whose first frame shows most of what the motion moves, and a face.

    driven   (17,) how often, in [0, 1], each body point is seen in the motion
    """

    def worth(clip: Clip) -> float:
        points = clip.load_keypoints(0)
        if points is None:
            return 0.0
        seen = points[BODY, 2] >= VISIBLE
        return float((driven * seen).sum() / max(driven.sum(), 1e-6)) + FACE_WORTH * (five_points(points) is not None)

    return max((clip for clip in clips if clip.split == "train"), key=worth).id


def _seen(driving: Path, clip: str) -> np.ndarray:
    """(17,) how often each body point is seen; ones for a drawn film."""
    if driving.suffix == ".npz":
        points = read_keypoints(driving)
    elif is_data_set(driving):
        found = next(one for one in read_manifest(driving) if one.id == clip)
        if "keypoints" not in found.layers:
            return np.ones(BODY.stop)
        points = np.stack([found.load_keypoints(k) for k in range(found.num_frames)])
    else:
        return np.ones(BODY.stop)
    return (points[:, BODY, 2] >= VISIBLE).mean(0)


def _prepare(job: Job, source: Path, target: Path, more: list[str]) -> None:
    weights = ["--weights", str(job.weights)] if job.weights else []
    _run(
        "prepare_data.py", "--input", str(source.resolve()), "--output", str(target), "--annotators", job.annotators,
        *weights, *more,
    )  # fmt: skip


def _run(script: str, *arguments: str) -> None:
    """Run a script of this repository."""
    run_to_its_end([sys.executable, f"scripts/{script}", *arguments])


def _count(path: Path) -> int:
    """Pictures in a folder, or frames of a film; 0 where it cannot be told."""
    if path.is_dir():
        return sum(file.suffix.lower() in PHOTO_SUFFIXES for file in path.rglob("*"))
    try:
        film = VideoSource(path, verify=False)
    except UserError:
        return 0
    film.close()
    return film.num_frames


def _owner(home: Path) -> str:
    """Which photos a person's folder was made from, or ''."""
    path = home / OWNER
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _frames(motion: Path, kind: str) -> int:
    """How many frames drive, about."""
    if kind == "keypoints":
        return len(read_keypoints(motion)) if motion.suffix == ".npz" else 0
    if kind == "data set":
        return max(clip.num_frames for clip in read_manifest(motion))
    return _count(motion)


def _plain(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text).strip("._-") or "person"


def _digest(paths: Sequence[Path], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
