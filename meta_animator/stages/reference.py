"""Stage 2: a few photos of one person. The loss and the step are stage 0's; the data and the stored name differ."""

from typing import Any

from meta_animator.stages.control import ControlStage


class ReferenceStage(ControlStage):
    """Remembers in its checkpoint whose photos it saw, and what was said of them, so that sampling need not be told."""

    person: str = ""
    description: str = ""

    def metadata(self) -> dict[str, Any]:
        return {**super().metadata(), "person": self.person, "description": self.description}
