"""What can be told to be wrong before anything is rendered, loaded or encoded: from the config (check_settings.py), from the
files that are there (check_data.py) and from what checkpoints say of themselves (check_checkpoints.py). `--dry-run` asks it, and
every run before it begins."""

from collections.abc import Callable
from typing import NamedTuple

from meta_animator.settings import METHOD, NETWORKS, TRAINING, RunConfig
from meta_animator.stages.check_checkpoints import Absent, check_control, check_extraction, check_motion, check_words
from meta_animator.stages.check_data import check_data, check_inputs, check_own_folders, try_inputs
from meta_animator.stages.check_family import check_family
from meta_animator.stages.check_settings import check_face, check_sampling, check_sides, check_steps, check_training

SAMPLE = ("sample",)


class Check(NamedTuple):
    """What is asked: returns notes or None, raises UserError for what is in a run's way.

    sections   of the config that it is given, in this order
    dry        only for `--dry-run`
    """

    ask: Callable[..., list[str] | None]
    stages: tuple[str, ...]
    sections: str
    dry: bool = False


CHECKS = (  # in this order
    Check(check_family, METHOD, "stage model data loss train sample"),
    Check(check_training, TRAINING, "stage data model train"),
    Check(check_data, TRAINING, "stage data model train"),
    Check(check_sampling, SAMPLE, "sample model"),
    Check(check_sides, (*NETWORKS, *SAMPLE), "model data"),
    Check(check_steps, SAMPLE, "model sample"),
    Check(check_face, NETWORKS, "model loss"),
    Check(check_control, (*NETWORKS, *SAMPLE), "stage model sample"),
    Check(check_motion, ("motion", *SAMPLE), "stage model"),
    Check(check_words, SAMPLE, "stage model sample"),
    Check(check_inputs, SAMPLE, "sample data"),
    Check(check_own_folders, SAMPLE, "sample output_dir"),
    Check(try_inputs, SAMPLE, "sample data seed model", dry=True),  # the run itself opens them next
    Check(check_extraction, ("extract",), "stage model extract"),
)


def check_run(config: RunConfig, dry: bool = False) -> list[str]:
    """Notes on a run that may start. Raises UserError for the first thing that is in its way.

    dry   what is not there yet (data sets, checkpoints) is a note too
    """
    notes: list[str] = []
    for check in CHECKS:
        if config.stage not in check.stages or (check.dry and not dry):
            continue
        try:
            notes += check.ask(*(getattr(config, section) for section in check.sections.split())) or []
        except Absent as error:
            if not dry:
                raise
            notes.append(f"not there yet: {error}")
    return list(dict.fromkeys(notes))
