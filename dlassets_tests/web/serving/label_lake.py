"""A small lake with open requests, the page that asks about them, and people at it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from dlassets.images.digest import image_id_of
from dlassets.settings import Settings
from dlassets.storage.lake import Lake
from dlassets_tests.tables import put

HOSTILE = "unlabeled/<img src=x onerror=alert(1)>.jpg"
CLASSES = {2: "hat", 6: "<b>shirt</b>", 10: "t-shirt"}


def picture(place: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 240), (place * 53 % 256, place * 91 % 256, 120)).save(out, "JPEG")
    return out.getvalue()


def label_lake(root: Path, confidences: Sequence[float], **more: dict[str, Any]) -> Settings:
    """Make a lake with a request a1, a2, … for each confidence; `more` says what is otherwise of one."""
    settings = Settings(root=str(root))
    lake = Lake.at(settings.root)
    images, requests = [], []
    for place, confidence in enumerate(confidences, 1):
        path, data = (HOSTILE if place == 1 else f"unlabeled/{place}.jpg"), picture(place)
        image = {"path": path, "image_id": image_id_of(data)}
        images.append(image | {"content": data, "length": len(data), "landing": "unlabeled"})
        asked = {"request_id": f"a{place}", "confidence": confidence, "predicted_label": 2, "predicted_name": "hat"}
        sent = {"batch_id": "v1-a", "status": "open", "service": "folder", "strategy": "margin"}
        requests.append(image | asked | sent | more.get(f"a{place}", {}))
    put(lake, "raw_images", *images)
    put(lake, "label_requests", *requests)
    put(lake, "classes", *({"label": label, "name": name} for label, name in CLASSES.items()))
    return settings


@dataclass
class Person:
    """Somebody at a browser, who asks as the page does."""

    client: TestClient
    name: str
    browser: str = ""
    token: str = ""
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.browser = self.browser or f"b-{''.join(filter(str.isalnum, self.name))}"
        self.headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def deal(self, most: int = 8, holds: Sequence[str] = ()) -> dict[str, Any]:
        asked = {"person": self.name, "browser": self.browser, "most": most, "holds": list(holds)}
        reply = self.client.post("/label/next", json=asked, headers=self.headers)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def next(self, most: int = 8, holds: Sequence[str] = ()) -> list[str]:
        return [photo["id"] for photo in self.deal(most, holds)["photos"]]

    def act(self, request: str, act: str = "answered", label: int | None = None, **more: Any) -> Any:
        """Send one answer; return what is wrong with it, None where it is kept."""
        self.sent += 1
        one = {"id": f"{self.browser}-{self.sent}", "request_id": request, "person": self.name, "act": act}
        reply = self.send({**one, "label": label, **more})
        assert reply.status_code == 200, reply.text
        return reply.json()["problems"][0]

    def answer(self, request: str, label: int = 2, **more: Any) -> Any:
        return self.act(request, "answered", label, **more)

    def send(self, *answers: Any) -> Any:
        asked = {"browser": self.browser, "answers": list(answers)}
        return self.client.post("/label/answers", json=asked, headers=self.headers)
