"""Model cards: the README.md beside what leaves the house, as the model hub shows it and `huggingface_hub` reads it."""

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meta_animator import __version__
from meta_animator.checkpoints.card_facts import Origin, facts
from meta_animator.files import whole_file
from meta_animator.media.images import write_image
from meta_animator.models.person import own_loras

README, STRIP = "README.md", "strip.png"
SEAL = re.compile(r"\n<!-- unchanged while this is its sha256: ([0-9a-f]{64}) -->\n\Z")
USE = (
    "Do not show people in motions that they have not agreed to. Do not deceive about who did or said something. Do not harass "
    "anybody, and make no sexual pictures of anybody. Have the consent of whoever is in the photos, and say of a video that it "
    "is generated."
)
PAPERS = (
    "[Meta-Animator](https://metaanimator.github.io), [CtrLoRA](https://arxiv.org/abs/2410.09400), "
    "[ControlNet](https://arxiv.org/abs/2302.05543), [AnimateDiff](https://arxiv.org/abs/2307.04725), "
    "[DreamBooth](https://arxiv.org/abs/2208.12242)"
)
WAN_PAPERS = ", [Wan](https://arxiv.org/abs/2503.20314), [VACE](https://arxiv.org/abs/2503.07598)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """
    what       a sentence or two on what it is
    library    what loads it, as the hub calls it
    pipeline   the hub's name of what it is for
    code       Python that loads it as `pipe` from the repository "NAME"; where it says so, on the base "BASE"
    hint       what is to be known beside the code
    folder     what is uploaded
    """

    title: str
    what: str
    library: str
    pipeline: str
    tags: Sequence[str]
    code: str
    hint: str
    folder: str
    origin: Origin


def write_card(folder: Path, card: Card, picture: np.ndarray | None = None) -> None:
    """README.md and, where there is a picture, strip.png. A card that somebody wrote or changed stays, which is said."""
    file, strip = folder / README, folder / STRIP
    if is_others(file):
        print(f"note: {file}: was written or changed by somebody; it stays as it is")
        return
    if not file.is_file() and strip.exists():
        picture = None  # somebody's, too
    elif file.is_file() and f"({STRIP})" in file.read_text(encoding="utf-8"):
        strip.unlink(missing_ok=True)
    if picture is not None:
        write_image(strip, picture)
    with whole_file(file) as part:
        part.write_text(sealed(card_text(card, shows=picture is not None)), encoding="utf-8")


def keep_others(old: Path, new: Path) -> None:
    """Take somebody's README.md along from a folder to the one that takes its place."""
    if is_others(old / README):
        print(f"note: {old / README}: was written or changed by somebody; it stays as it is")
        shutil.copyfile(old / README, new / README)


def is_others(file: Path) -> bool:
    """Whether this is a README.md that is not as this program wrote it."""
    if not file.is_file():
        return False
    text = file.read_bytes().decode("utf-8", "replace")
    found = SEAL.search(text)
    return not found or found[1] != _digest(text[: found.start()])


def sealed(text: str) -> str:
    return f"{text}\n<!-- unchanged while this is its sha256: {_digest(text)} -->\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def card_text(card: Card, shows: bool) -> str:
    """shows: whether strip.png lies beside it"""
    origin, wan = card.origin, "wan" in card.tags
    picture = f"![Generated frames; below them the drawings, if any, that drove them]({STRIP})\n\n" if shows else ""
    rows = "\n".join(f"| {name} | {_in_a_cell(value)} |" for name, value in facts(origin).items())
    person = "These weights make pictures of one person. " if origin.metadata.get("stage") == "reference" else ""
    return f"""---
{head(card)}---

# {card.title}

{card.what}

{picture}| | |
|---|---|
{rows}

## How to load it

```python
{card.code.strip()}
```

{card.hint}

To publish it: `hf upload NAME {card.folder or "."}`, where NAME is a repository of yours, such as `me/animator`.

## What it must not be used for

{person}{USE}

## Licence

{licence_text(origin)}

## Where the method comes from

{PAPERS}{WAN_PAPERS if wan else ""}. Written by Meta-Animator {__version__}.
"""


def _in_a_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def head(card: Card) -> str:
    """The YAML that the hub reads."""
    from huggingface_hub import ModelCardData

    origin, tasks = card.origin, card.origin.metadata.get("tasks", ())
    data = ModelCardData(
        base_model=origin.base.hub or None, license=origin.base.licence or None, library_name=card.library,
        pipeline_tag=card.pipeline, tags=["meta-animator", *card.tags, *tasks],
        **({"instance_prompt": origin.prompt} if origin.prompt else {}),
    )  # fmt: skip
    return data.to_yaml().strip() + "\n"


def licence_text(origin: Origin) -> str:
    base = origin.base
    loras = origin.metadata.get("base_loras", {})
    others = set(loras) - own_loras(loras)
    more = " LoRAs of others are folded into the base: their licences count, too." if others else ""
    if not base.licence:
        return (
            f"What the licence of the base, {base.name}, asks holds for these weights too. It is not known to the program that "
            f"wrote this card: look it up, and add `license:` to the head of this file.{more}"
        )
    return f"`{base.licence}`, that of the base. What it asks holds for these weights too.{more}"
