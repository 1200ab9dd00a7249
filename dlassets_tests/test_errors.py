"""Errors for people on their way out of another process: by a record, by a pickle, and within another system's text."""

import json
import pickle
import traceback

import pytest

from dlassets.errors import DlassetsError, EncodedError, decoded_error, encoded_errors, error_from, record_of
from dlassets.images.decode import ImageError
from dlassets.intake.listing import PartlyListedError
from dlassets_tests.errors import ERRORS, raising


class OfATestError(ImageError):
    pass


class TooLongError(DlassetsError):
    def __init__(self, length: str) -> None:
        super().__init__(f"{length} is too long.")


def by_record(error: DlassetsError) -> Exception:
    return error_from(json.loads(json.dumps(record_of(error))))


def by_pickle(error: DlassetsError) -> Exception:
    return pickle.loads(pickle.dumps(error))


def by_text(error: DlassetsError) -> Exception | None:
    with pytest.raises(EncodedError) as raised, encoded_errors():
        raise error
    printed = "".join(traceback.format_exception(raised.value))
    return decoded_error(
        f"Job aborted due to stage failure:\n{printed}\n\tat org.apache.spark.Task.run(Task.scala:147)"
    )


@pytest.mark.parametrize("way", [by_record, by_pickle, by_text])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *zip(ERRORS, ERRORS, strict=True),
        (OfATestError("no picture"), ImageError("no picture")),
        (PartlyListedError("one folder", None), DlassetsError("one folder")),
        (TooLongError("A"), DlassetsError("A is too long.")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_its_nearest_kind_that_can_be_made_again(way, error, expected) -> None:
    with raising(expected):
        raise way(error)


def test_a_text_in_which_an_error_was_cut_short_has_none() -> None:
    with pytest.raises(EncodedError) as raised, encoded_errors():
        raise ERRORS[1]

    assert decoded_error(str(raised.value)[:-1]) is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("postgresql://me:hunter2@db.example.com/mlflow is down", "postgresql://…@db.example.com/mlflow is down"),
        ("s3://key:a%2Fb@bucket/zone, and s3://key:c@other", "s3://…@bucket/zone, and s3://…@other"),
        (
            "https://db.example.com/a@b and file:///home/me@work/x",
            "https://db.example.com/a@b and file:///home/me@work/x",
        ),
    ],
)
def test_an_error_tells_nobody_the_user_and_password_of_a_uri(said, shown) -> None:
    assert str(DlassetsError(said)) == shown
    assert str(error_from(record_of(DlassetsError(said)))) == shown
