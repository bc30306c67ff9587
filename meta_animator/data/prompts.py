"""Prompts that the text encoder reads to their end: descriptions are cut, identifiers are not."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from meta_animator.data.clips import Clip
from meta_animator.errors import UserError

MOST_NOTES = 4

Fits = Callable[[str], bool]  # whether the text encoder reads all of a prompt


def fill_prompt(template: str, identifier: str, description: str) -> str:
    return template.replace("{identifier}", identifier).replace("{description}", description).strip()


def fit_description(template: str, identifier: str, description: str, fits: Fits) -> str:
    """The description, or as many of its words (of a text without spaces: letters) as the prompt has room for beside the rest."""
    if fits(fill_prompt(template, identifier, description)) or "{description}" not in template:
        return description
    for pieces, between in ((description.split(), " "), (list(description), "")):
        count, above = 0, len(pieces)
        while above - count > 1:
            middle = (count + above) // 2
            if fits(fill_prompt(template, identifier, between.join(pieces[:middle]))):
                count = middle
            else:
                above = middle
        if count:
            return between.join(pieces[:count]).rstrip(" ,;:-")
    return ""


def cut_note(person: str, whole: str, cut: str) -> str:
    """What is said of a description that was cut."""
    kept, words, end = len(cut.split()), len(whole.split()), cut[-30:].partition(" ")[2] or cut[-30:]
    return f"the description of '{person}' is cut after {kept} of {words} words ('... {end}'): the text encoder reads no more"


def fit_descriptions(clips: Sequence[Clip], template: str, identifiers: Mapping[str, str], fits: Fits) -> list[str]:
    """Cut the descriptions of clips, in place, so that the whole prompt is read; returns what there is to say of it.

    Raises UserError where the identifier is cut off even without a description.
    """
    known: dict[tuple[str, str], str] = {}
    for clip in clips:
        key = clip.identity, clip.prompt
        if key not in known:
            identifier = identifiers.get(clip.identity, "")
            if loses_identifier(fill_prompt(template, identifier, ""), identifier, fits):
                raise UserError(f"data.prompt: the text encoder does not read as far as {{identifier}}; shorten '{template}'")
            known[key] = fit_description(template, identifier, clip.prompt, fits)
        clip.prompt = known[key]
    return _some([cut_note(person, whole, cut) for (person, whole), cut in known.items() if cut != whole])


def loses_identifier(prompt: str, identifier: str, fits: Fits) -> bool:
    """Whether the text encoder reads a prompt only up to its identifier, or not so far."""
    return bool(identifier) and identifier in prompt and not fits(prompt[: prompt.rindex(identifier) + len(identifier)])


def _some(notes: Iterable[str]) -> list[str]:
    notes = list(notes)
    more = len(notes) - MOST_NOTES
    return notes if more <= 0 else [*notes[:MOST_NOTES], f"of other people or clips, {more} more descriptions are cut"]
