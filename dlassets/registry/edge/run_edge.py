"""Say what is on photos, by a bundle that dlassets made: `python run_edge.py photo.jpg …`, or `import run_edge`.

It needs onnxruntime, numpy and Pillow. Of the bundles beside it, `bundles/1`, …, the newest is used that is whole and
answers its own photos as it did: `current` names it, others are refused. In a bundle's folder it answers by that one.
"""

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps


class BundleError(Exception): ...


def as_seen(photo: bytes, view: dict[str, Any]) -> Any:
    """Return an image file as the network sees it, (1, side, side, 3). Raises OSError for what Pillow cannot open."""
    opened = Image.open(io.BytesIO(photo))
    opened.draft(None, (view["decode_at_least"],) * 2)
    image: Image.Image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    with contextlib.suppress(OSError, ValueError, ImageCms.PyCMSError):  # no profile, or a broken one, asks for nothing
        profile, srgb = io.BytesIO(opened.info.get("icc_profile") or b""), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB") or image
    side = max(1, round(min(image.size) * view["crop"]))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.convert("RGB").crop((left, top, left + side, top + side))
    return np.asarray(middle.resize((view["side"],) * 2, Image.Resampling.BICUBIC))[None]


class Bundle:
    """A model with the files that it was made with, that answers as it did then. Raises BundleError for any other."""

    def __init__(self, folder: Path, precision: str | None = None, is_known: bool = False) -> None:
        import onnxruntime

        try:
            self.description = said = json.loads((folder / "bundle.json").read_bytes())
            listed = {**said["sha256"], "bundle.json": said.pop("digest")}
            files = {name: (folder / name).read_bytes() for name in listed}
            files["bundle.json"] = json.dumps(said, sort_keys=True).encode()
            for name, content in files.items():
                if hashlib.sha256(content).hexdigest() != listed[name]:
                    raise ValueError(f"{name} is not the file that it was made with")
            precision = precision or said["use"]
            graph = files[said["precisions"][precision]["onnx"]]
            self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            for golden in [] if is_known else said["golden"]:
                off = float(np.abs(self.probabilities(files[golden["file"]]) - golden[precision]).max())
                if not off <= said["tolerance"]:
                    raise ValueError(f"its answer to {golden['file']} is {off:.3f} off the one where it was made")
        except Exception as error:  # whatever half a bundle leads to
            raise BundleError(f"{type(error).__name__}: {error}") from error

    def probabilities(self, photo: bytes) -> Any:
        return self.session.run(None, {"photo": as_seen(photo, self.description["view"])})[0][0]

    def answer(self, photo: bytes, top_k: int = 5) -> dict[str, Any]:
        """Return label, name, confidence, margin, top_k and model. Raises OSError for what Pillow cannot open."""
        said, classes = self.probabilities(photo), self.description["classes"]
        best = [{**classes[place], "confidence": float(said[place])} for place in np.argsort(-said, kind="stable")]
        margin = best[0]["confidence"] - best[1]["confidence"]
        return {**best[0], "margin": margin, "top_k": best[:top_k], "model": self.description["model"]}


def newest(home: Path, precision: str | None = None) -> tuple[Bundle, dict[int, str]]:
    """Take the newest good bundle in use; return it, and why newer ones are refused. Raises BundleError without one."""
    pointer, refused = home / "current", dict[int, str]()
    for number in sorted((int(one.name) for one in home.glob("bundles/*") if one.name.isdecimal()), reverse=True):
        try:
            is_known = pointer.exists() and pointer.read_text() == str(number)
            bundle = Bundle(home / "bundles" / str(number), precision, is_known)
            pointer.with_name("current.new").write_text(str(number))
            pointer.with_name("current.new").replace(pointer)
            return bundle, refused
        except BundleError as error:
            refused[number] = str(error)
    raise BundleError(f"{home} has no bundle that may be used: {refused or 'there is none'}")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    bundle, refused = (Bundle(here), {}) if (here / "bundle.json").exists() else newest(here)
    sys.stderr.writelines(f"Bundle {number} is refused: {why}\n" for number, why in refused.items())
    for photo in sys.argv[1:]:
        try:
            answer = bundle.answer(Path(photo).read_bytes())
        except Exception as error:  # a bad photo costs its own answer
            answer = {"error": repr(error)}
        print(json.dumps({"photo": photo, **answer}))
