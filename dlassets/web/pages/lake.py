"""The pages of one lake, each of which asks `monitoring.views` and shows what that says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dlassets.errors import DlassetsError
from dlassets.lakehouse.tables import TEST, VALIDATION
from dlassets.masking import masked
from dlassets.monitoring.views.bought import bought
from dlassets.monitoring.views.comparison import compare, versions_that_answered
from dlassets.monitoring.views.contradictions import contradictions
from dlassets.monitoring.views.mistakes import PAGE, Chosen, mistakes
from dlassets.monitoring.views.models import Models, Version, models_of
from dlassets.monitoring.views.overview import overview
from dlassets.monitoring.views.photos import photo, search
from dlassets.monitoring.views.reading import Reading
from dlassets.monitoring.views.waiting import waiting
from dlassets.settings import Settings
from dlassets.storage.files import is_there
from dlassets.web.identity import visitor_of
from dlassets.web.pages.decisions import may_decide
from dlassets.web.pages.rendering import Templates

# Thumbnails in a box of the first page, classes that a matrix has room for, and pages that may be asked for.
_FEW, MOST_CLASSES, MOST_PAGES = 6, 20, 100_000


def routes(settings: Settings, templates: Templates) -> list[Route]:
    pages = LakePages(settings, templates)
    return [
        Route("/", pages.start),
        Route("/wrong", pages.wrong),
        Route("/photo", pages.photo),
        Route("/requests", pages.requests),
        Route("/contradictions", pages.contradictions),
        Route("/compare", pages.compare),
        Route("/labeling", pages.labeling),
    ]


class LakePages:
    def __init__(self, settings: Settings, templates: Templates) -> None:
        self._settings = settings
        self._templates = templates

    def start(self, request: Request) -> Response:
        reading, (models, problem) = Reading(self._settings), self._models()
        champion = models.champion
        wrong = mistakes(reading, champion.run_id, Chosen(), most=_FEW) if champion else None
        queue = waiting(reading, most=_FEW)
        least_sure = sorted((shown for batch in queue.batches for shown in batch.shown), key=lambda row: row.confidence)
        few = least_sure[:_FEW]
        gallery = f"{reading.lake.reports}/image_gallery/index.html"
        return self._templates.page(
            "start.html",
            models=models,
            decides=may_decide(visitor_of(request.scope)),
            problem=problem,
            overview=overview(reading),
            wrong=wrong,
            few=few,
            queue=queue,
            thumbnails=_thumbnails(reading, [*(wrong.shown if wrong else ()), *few]),
            gallery=reading.lake.within(gallery) if is_there(gallery) else None,
        )

    def wrong(self, request: Request) -> Response:
        reading, models = Reading(self._settings), models_of(self._settings)
        version, run_id = _judged(models, request)
        chosen = Chosen(_split(request), _number(request, "label"), _number(request, "predicted"))
        place = min(max(1, _number(request, "page") or 1), MOST_PAGES)
        found = mistakes(reading, run_id, chosen, first=(place - 1) * PAGE)
        return self._templates.page(
            "wrong.html",
            models=models,
            version=version,
            run_id=run_id,
            chosen=chosen,
            found=found,
            place=place,
            pages=-(-found.chosen // PAGE),
            is_matrix=len(found.classes) <= MOST_CLASSES,
            thumbnails=_thumbnails(reading, found.shown),
        )

    def compare(self, request: Request) -> Response:
        reading, (models, _) = Reading(self._settings), self._models()
        answered = versions_that_answered(reading)
        a, b = _two_of(answered, models, _number(request, "a"), _number(request, "b"))
        found = None
        if a is not None and b is not None:
            for version in (a, b):
                if version not in answered:
                    raise HTTPException(404, f"Version {version} of {models.name} has answered about no photo.")
            found = compare(reading, a, b)
        return self._templates.page(
            "compare.html",
            answered=sorted(answered, reverse=True),
            champion=models.champion.number if models.champion else None,
            a=a,
            b=b,
            found=found,
            thumbnails=_thumbnails(reading, found.shown if found else ()),
        )

    def photo(self, request: Request) -> Response:
        reading = Reading(self._settings)
        if (path := request.query_params.get("path")) is None:
            text = request.query_params.get("q", "").strip()
            found = search(reading, text) if text else None
            shown = found.shown if found else ()
            return self._templates.page("search.html", text=text, found=found, thumbnails=_thumbnails(reading, shown))
        if (known := photo(reading, path)) is None:
            raise HTTPException(404, f"The lake knows nothing of {path}.")
        return self._templates.page("photo.html", photo=known, models=self._models()[0])

    def requests(self, _: Request) -> Response:
        reading = Reading(self._settings)
        queue = waiting(reading)
        shown = [request for batch in queue.batches for request in batch.shown]
        return self._templates.page(
            "requests.html",
            queue=queue,
            overview=overview(reading),
            lake=reading.lake,
            contradictions=contradictions(reading, most=1).total,
            thumbnails=_thumbnails(reading, shown),
        )

    def contradictions(self, _: Request) -> Response:
        reading = Reading(self._settings)
        found = contradictions(reading)
        return self._templates.page("contradictions.html", found=found, thumbnails=_thumbnails(reading, found.shown))

    def labeling(self, _: Request) -> Response:
        reading = Reading(self._settings)
        return self._templates.page("labeling.html", bought=bought(reading), overview=overview(reading))

    def _models(self) -> tuple[Models, str | None]:
        """Return the models, or none and why: where MLflow does not answer, the tables have a word all the same."""
        try:
            return models_of(self._settings), None
        except DlassetsError as error:
            return Models(self._settings.registry.model_name), masked(str(error))


def _judged(models: Models, request: Request) -> tuple[Version | None, str]:
    """Return the version that is asked for, or is of the training run that is, and its run.

    By default it is the champion, or the newest where none is. A run need not have become a version.
    """
    if (run_id := request.query_params.get("run")) is not None:
        return models.of_run(run_id), run_id
    if (number := _number(request, "version")) is None:
        version = models.champion or next(iter(models.versions), None)
    elif (version := models.version(number)) is None:
        raise HTTPException(404, f"There is no version {number} of {models.name}.")
    return version, version.run_id if version else ""


def _two_of(answered: Collection[int], models: Models, a: int | None, b: int | None) -> tuple[int | None, int | None]:
    """Return the versions that are asked for: by default the champion, and the newest other that has answered."""
    newest_first = sorted(answered, reverse=True)
    if a is None:
        others = [version for version in newest_first if version != b]
        a = models.champion.number if models.champion and models.champion.number in others else next(iter(others), None)
    if b is None:
        b = next((version for version in newest_first if version != a), None)
    return a, b


def _thumbnails(reading: Reading, rows: Sequence[Any]) -> dict[str, bytes]:
    return reading.thumbnails({row.image_id for row in rows if row.image_id})


def _split(request: Request) -> str | None:
    split = request.query_params.get("split")
    if split not in {None, VALIDATION, TEST}:
        raise HTTPException(400, f"A split that models are tested on is {VALIDATION} or {TEST}.")
    return split


def _number(request: Request, name: str) -> int | None:
    """Return a number that is asked for. Raises HTTPException where it is none."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 18:  # noqa: PLR2004 - what tables can hold
        raise HTTPException(400, f"{name} must be a number.")
    return int(text)
