"""What may be tuned: said wrongly, it is refused before anything runs."""

import pytest

from dlassets.errors import SettingsError
from dlassets.settings import Span, TrainingSettings, TuningSettings
from dlassets.tuning.search_space import Space, check_space, current_values, settings_with, suggest

HEAD, PIXELS = TrainingSettings(), TrainingSettings(trainable="last_n")


def test_chosen_values_take_the_place_of_the_settings_own() -> None:
    chosen = settings_with(HEAD, {"l2": 0.3, "balance": "weights", "pixels.learning_rate": 1e-5})

    assert (chosen.l2, chosen.balance, chosen.pixels.learning_rate) == (0.3, "weights", 1e-5)
    mine, others = (settings.model_dump(exclude={"l2", "balance", "pixels"}) for settings in (chosen, HEAD))
    assert mine == others
    assert chosen.pixels.model_copy(update={"learning_rate": HEAD.pixels.learning_rate}) == HEAD.pixels


@pytest.mark.parametrize(
    ("training", "space", "says"),
    [
        (HEAD, {}, "tuning.space is empty"),
        (HEAD, {"l3": Span(low=0.1, high=1)}, "tuning.space.l3: training has no such setting. Did you mean l2?"),
        (PIXELS, {"pixels.learning_rat": (1e-3,)}, "Did you mean pixels.learning_rate?"),
        (PIXELS, {"pixels": (1,)}, "training has no such setting"),
        (HEAD, {"pixels.learning_rate": (1e-3,)}, "changes nothing while training.trainable is head"),
        (HEAD, {"trainable": ("head", "all")}, "training.trainable must be the same in all trials"),
        (HEAD, {"compute.device": ("cpu", "cuda")}, "must be the same in all trials"),
        (HEAD, {"balance": Span(low=0, high=1)}, "training.balance is no number: give a list"),
        (HEAD, {"balance": ("none", "wheights")}, "training.balance: .* 'sampling'.*given: 'wheights'"),
        (HEAD, {"patience": Span(low=1, high=4.5)}, "training.patience is a whole number"),
        (HEAD, {"label_smoothing": Span(low=0, high=1)}, r"training.label_smoothing: .* less than 1 \(given: 1.0\)"),
        (HEAD, {"l2": Span(low=-1, high=1)}, "training.l2: .* greater than or equal to 0"),
    ],
)
def test_a_space_that_cannot_be_is_refused_by_name(training, space, says) -> None:
    with pytest.raises(SettingsError, match=says):
        check_space(space, training)


def test_the_default_space_can_be_whatever_is_trained() -> None:
    for trainable in ("head", "last_n", "all"):
        check_space(TuningSettings().space, TrainingSettings(trainable=trainable))


def test_what_is_suggested_lies_in_the_space_and_is_of_the_settings_type() -> None:
    import optuna

    space: Space = {
        "patience": Span(low=2, high=4),
        "l2": Span(low=1e-3, high=1, log=True),
        "balance": ("none", "weights"),
        "pixels.warmup_epochs": Span(low=0, high=2),
    }
    check_space(space, PIXELS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))

    tried = [suggest(study.ask(), space) for _ in range(40)]

    assert {one["patience"] for one in tried} == {2, 3, 4}
    assert {one["balance"] for one in tried} == {"none", "weights"}
    assert sum(one["l2"] < 0.03 for one in tried) == pytest.approx(20, abs=8)  # half of a span's decades
    assert all(isinstance(one["pixels.warmup_epochs"], float) for one in tried)


def test_the_settings_as_they_stand_are_a_trial_where_the_space_has_them() -> None:
    space: Space = {"l2": Span(low=0.01, high=1), "balance": ("none", "weights")}

    assert current_values(space, TrainingSettings(l2=0.05)) == {"l2": 0.05, "balance": "none"}
    assert current_values(space, HEAD) is None  # l2 is unset, and no span has that
    assert current_values(space, TrainingSettings(l2=2)) is None
    assert current_values(space, TrainingSettings(balance="sampling")) is None
