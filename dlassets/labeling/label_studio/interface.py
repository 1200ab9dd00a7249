"""What people see in Label Studio, as its XML: a photo, what the model thinks, and one choice of the classes.

A choice has two names: `value`, which people read, is the class's name now; `alias`, which answers carry, is what its
folder was called (002.hat) when it was first shown, and stays that for as long as the project has it. So a class that
is renamed is the same in the answers of before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import quoteattr

from dlassets.images.folders import class_folder
from dlassets.labeling.services import Request

# Of a task's data.
IMAGE, REQUEST_ID, ABOUT = "image", "request_id", "about"
# The names of the question and of the photo, by which results say what they are about.
QUESTION, PHOTO = "label", "photo"
_HOTKEYS = "123456789"
_LABEL = re.compile(r"(\d+)(?:\.|$)", re.ASCII)
# The least sure of all are served first, whichever version asked: of the versions of a model, one alone would be.
_MODEL = "dlassets"
# What XML 1.0 has no way to write.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def choices_in(parsed: Mapping[str, Any]) -> dict[int, tuple[str, str]] | None:
    """Return alias and name of each class, by label, of a project's interface as the server has understood it.

    None for an interface that is not ours. One without any question has no class.
    """
    if not parsed:
        return {}
    question = parsed.get(QUESTION, {})
    if set(parsed) != {QUESTION} or question.get("type") != "Choices" or question.get("to_name") != [PHOTO]:
        return None
    choices: dict[int, tuple[str, str]] = {}
    for alias, attributes in question.get("labels_attrs", {}).items():
        if (number := _LABEL.match(alias)) is None:
            return None
        choices.setdefault(int(number[1]), (alias, attributes.get("value", alias)))
    return choices


def choices_of(classes: Mapping[int, str], shown: Mapping[int, tuple[str, str]]) -> dict[int, tuple[str, str]]:
    """Return alias and name of each class, by label; aliases are those that are shown already, where they are."""
    return {
        label: (shown[label][0] if label in shown else class_folder(label, name), _legible(name) or str(label))
        for label, name in sorted(classes.items())
    }


def interface_of(choices: Mapping[int, tuple[str, str]]) -> str:
    """Return the interface: keys 1 to 9 choose the first nine classes."""
    lines = [
        "<View>",
        f'  <Header value="${ABOUT}"/>',
        f'  <Choices name="{QUESTION}" toName="{PHOTO}" choice="single-radio" showInLine="true" required="true"',
        '           requiredMessage="Choose a class, or skip the photo.">',
    ]
    for nth, (alias, name) in enumerate(choices.values()):
        key = f' hotkey="{_HOTKEYS[nth]}"' if nth < len(_HOTKEYS) else ""
        lines.append(f"    <Choice alias={quoteattr(alias)} value={quoteattr(name)}{key}/>")
    # Below the classes, which a tall photo would push out of sight.
    photo = f'  <Image name="{PHOTO}" value="${IMAGE}" zoomControl="true"/>'
    return "\n".join([*lines, "  </Choices>", photo, "</View>"])


def task_of(request: Request, image: str, choices: Mapping[int, tuple[str, str]], **more: str) -> dict[str, Any]:
    """Return the task that asks about a request whose photo is at `image`, with what the model thinks; `more` is data.

    A guess of a class that is none of the choices is not shown.
    """
    name, guess = request.path.rsplit("/", 1)[-1], request.predicted_name or request.predicted_label
    about = f"{name}: the model thinks {guess}, {request.confidence:.0%} sure"
    data = {IMAGE: image, REQUEST_ID: request.request_id, ABOUT: about, **more}
    if request.predicted_label not in choices:
        return {"data": data}
    result = result_of(choices[request.predicted_label][0])
    return {"data": data, "predictions": [{"result": result, "score": score_of(request), "model_version": _MODEL}]}


def score_of(request: Request) -> float:
    """Return what people are asked by, the lowest first: how sure the model is, and below all that what is pressing."""
    return round(request.confidence - (request.priority or 0), 6)


def result_of(alias: str) -> list[dict[str, Any]]:
    """Return the result that names a class, as annotations and predictions have it."""
    return [{"from_name": QUESTION, "to_name": PHOTO, "type": "choices", "value": {"choices": [alias]}}]


def chosen_in(result: object) -> list[str]:
    """Return what a result chooses, by its aliases: one class, unless it was made elsewhere."""
    chosen: list[str] = []
    for region in result if isinstance(result, list) else []:
        value = region.get("value") if isinstance(region, dict) else None
        if isinstance(value, dict) and region.get("from_name") == QUESTION:
            chosen += [str(alias) for alias in value.get("choices") or []]
    return chosen


def _legible(name: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", name).strip()
