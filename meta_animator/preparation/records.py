"""What preparation did with each frame and photo: kept, or rejected with a reason."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """One frame of a film, or one photo, and what became of it.

    source     the name of the film or photo it comes from, unique in a data set
    index      its number in the source; 0 for a photo
    time       seconds from the film's first frame; None for a photo
    kept       whether it is in the data set
    reason     why it was rejected, in a few words that are the same for all frames rejected alike; "" where it was kept
    made_by    {layer: name of the annotator, "user" (by hand) or "given"}
    facts      {what was measured: value}, such as {"sharpness": 0.4, "height": 512}
    thumbnail  a small picture of it, with skeleton and mask drawn over; None where none was made
    """

    source: str
    index: int
    time: float | None = None
    kept: bool = True
    reason: str = ""
    made_by: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, float] = dataclasses.field(default_factory=dict)
    thumbnail: Path | None = None


def count_reasons(records: Iterable[FrameRecord]) -> dict[str, int]:
    """How many frames were rejected for each reason, the most frequent first."""
    return dict(Counter(record.reason for record in records if not record.kept).most_common())
