"""What people read of a validation, and see."""

import io

from PIL import Image

from dlassets.learning.evaluation.corruptions import CORRUPTIONS
from dlassets.registry.validation.regressions import comparisons
from dlassets.registry.validation.report import draw, figures, markdown
from dlassets.registry.validation.robustness import AS_THEY_ARE, Robustness
from dlassets.registry.validation.validation import Check, Question, Validation
from dlassets_tests.registry.validation.test_checks import verdict

TRUTH = [1] * 20 + [2] * 20
COMPARED = verdict(TRUTH, [1] * 20 + [1] * 10 + [2] * 10, [1] * 18 + [3] * 2 + [2] * 20)
ROBUST = Robustness(40, [{AS_THEY_ARE: 0.75} | dict.fromkeys(CORRUPTIONS, 0.5)] * 2)


def validation(*checks: Check) -> Validation:
    question = Question("flowers", 8, "p" * 64, 7, "c" * 64, "r" * 64, {})
    details = figures(comparisons(COMPARED, None), ROBUST)
    return Validation(question, {"training_set": 3}, checks, "worse (p < 0.01), refused", details)


def test_the_verdict_comes_first_and_then_each_check_with_its_number() -> None:
    made = validation(
        Check("small", True, "the package has 0.50 MB", 0.5, 500),
        Check("robust", False, "noise | worst", 0.45, 0.3),
        Check("accurate", False, "right on few", 0.2, 0.5, "at least", blocks=True),
    )

    report = markdown(made, ["robustness.png"])

    assert report.startswith(
        "# Validation of flowers version 8, against version 7\n\n**Refused**: worse (p < 0.01).\n\n"
    )
    assert "| passed | small | 0.5 | at most 500 | the package has 0.50 MB |\n" in report
    assert "| **warns** | robust | 0.45 | at most 0.3 | noise \\| worst |\n" in report
    assert "| **refused** | accurate | 0.2 | at least 0.5 | right on few |\n" in report
    assert (
        "| class: class 2 | 20 | 10 | 20 | 0 | 10 | p < 0.01 |\n| class: class 1 | 20 | 20 | 18 | 2 | 0 |  |" in report
    )
    assert "![robustness.png](robustness.png)" in report
    assert f"| the champion's package | `{'c' * 64}` |" in report
    assert "| Delta version of training_set | `3` |" in report


def test_a_validation_is_told_by_all_that_it_says() -> None:
    check = Check("small", True, "the package has 0.50 MB", 0.5, 500)
    made = validation(check)

    assert Validation.from_json(made.json) == made
    assert Validation.from_json(made.json).sha256 == made.sha256
    assert validation(Check("small", True, "the package has 0.50 MB", 0.5, 400)).sha256 != made.sha256
    assert made.folder == "validation/flowers-8"


def test_pictures_are_of_both_models_and_of_one_where_there_is_no_champion() -> None:
    two = draw(COMPARED, comparisons(COMPARED, None), ROBUST, 8)
    one = draw(verdict(TRUTH, TRUTH, None), [], Robustness(), 1)

    assert two.keys() == {"gained_and_lost.png", "reliability.png", "robustness.png"}
    assert one.keys() == {"reliability.png"}
    widths = [Image.open(io.BytesIO(drawn["reliability.png"])).width for drawn in (two, one)]
    assert widths == [900, 450]
