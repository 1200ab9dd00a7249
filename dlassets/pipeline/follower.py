"""What follows ingest in a stream: the steps that have something new to work on, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlassets.pipeline import steps
from dlassets.pipeline.report import Report
from dlassets.pipeline.session import Session
from dlassets.pipeline.step import Made, Step

FOLLOWING = (
    steps.classes,
    steps.image_profiles,
    steps.labeled_images,
    steps.image_features,
    steps.predictions,
    steps.predictions_current,
)
CHAMPION_SECONDS = 2.0


class Follower:
    """Images are profiled, labelled by their folders, embedded, and scored by the champion.

    A step whose inputs are as they were when it was last done is passed over; not so where it left out a photo, whose
    file may be back before a listing finds that it was away. Without a champion nothing is scored; one
    that is promoted meanwhile is noticed.
    """

    def __init__(self, session: Session, report: Report, following: Sequence[Step] = FOLLOWING) -> None:
        self._session = session
        self._report = report
        self._following = following
        self._done: dict[str, tuple[Any, ...]] = {}
        self._lacks_champion = False

    def warm(self) -> None:
        """Load the backbone before the first image needs it; where kernels run elsewhere, they load it there."""
        from dlassets.learning.embedding import load_backbone

        if self._session.engine.name == "local":
            load_backbone(self._session.backbone, self._session.settings.features.runtime)

    def __call__(self) -> list[Made]:
        """Return what was made of what is new."""
        made = [self._follow(step) for step in self._following if self._can_run(step)]
        return [each for each in made if each is not None and each.changed]

    def _follow(self, step: Step) -> Made | None:
        read = step.hand_out(self._session)
        if self._done.get(step.name) == read.state:
            return None
        read, made = step.done(self._session, first=read)
        if made.complete:
            self._done[step.name] = read.state
        return made

    def _can_run(self, step: Step) -> bool:
        if not step.reads_champion:
            return True
        lacks_champion = self._session.champion() is None
        if lacks_champion and not self._lacks_champion:
            self._report.warning(
                f"No version of {self._session.model_name} is champion yet: images are not scored until "
                "training_pipeline made one."
            )
        self._lacks_champion = lacks_champion
        return not lacks_champion
