"""The processes that look at photos, and what becomes of photos where these end."""

import asyncio
import sys

import pytest

from dlassets.errors import DlassetsError
from dlassets.registry.models import ModelVersion
from dlassets.settings import ServingSettings
from dlassets.web.serving.looker import Have, Look, Looker
from dlassets.web.serving.refusals import RefusedError
from dlassets.web.serving.workers import Loaded, Workers

ONE, TWO = ModelVersion("m", 1), ModelVersion("m", 2)


@pytest.fixture
def workers(monkeypatch) -> Workers:
    """Those whose processes end at once."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    return Workers(ServingSettings(processes=1))


def test_a_process_has_the_models_it_was_told_of_last_and_one_network_for_all(models) -> None:
    looker = Looker()

    looker.answer(Have([(ONE, models.packages[0]), (TWO, models.packages[1])], 5))
    networks = {online.network for online in looker._models.values()}
    looker.answer(Have([(TWO, models.packages[1])], 5))
    (answer,) = looker.answer(Look([TWO], [models.photos[0]], 10**6))

    assert (len(networks), set(looker._models)) == (1, {TWO})
    assert [said["confidence"] for said in answer] == pytest.approx(
        [models.batch_scored(models.photos[:1], 2)[0]["confidence"]], abs=1e-12
    )


def test_a_photo_at_which_two_processes_end_is_refused_and_the_next_is_asked_about(workers, models) -> None:
    async def asked() -> list[object]:
        workers.start()
        asking = [workers.ask([Loaded(ONE, models.packages[0])], [photo]) for photo in models.photos]
        return await asyncio.gather(*asking, return_exceptions=True)

    refused = asyncio.run(asked())

    assert [str(each) for each in refused if isinstance(each, RefusedError)] == 4 * [
        "The photo cannot be looked at: the process that does so ended, and another one as well."
    ]
    assert workers.waiting == 0


def test_a_model_at_which_a_process_ends_is_not_had(workers, models) -> None:
    async def had() -> None:
        workers.start()
        await asyncio.to_thread(workers.have, [Loaded(ONE, models.packages[0])])

    with pytest.raises(DlassetsError, match=r"The process that looks at photos ended\. It was to load m/1"):
        asyncio.run(had())
