import subprocess
import sys

import numpy as np
import pytest

from dlassets.images.resampling import by_numpy, by_torch

SHAPES = [(1, 1), (7, 7), (31, 33), (224, 224), (225, 225), (256, 256), (400, 401), (448, 448), (1500, 1501)]


@pytest.mark.parametrize("side", [224, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_torch_each_byte_is_the_same(shape, side) -> None:
    random = np.random.default_rng(shape[0])
    soft = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for pixels in (soft, (soft > 127).astype(np.uint8) * 255):  # black beside white overshoots most
        assert np.array_equal(by_numpy(pixels, side), by_torch(pixels, side))


def test_what_is_no_contiguous_part_of_a_picture_is_resized_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)[10:-10, 60:-60]
    pixels.flags.writeable = False

    assert np.array_equal(by_numpy(pixels, 224), by_torch(pixels, 224))


@pytest.mark.slow
def test_torch_is_imported_once_that_pays() -> None:
    code = """
import sys
import numpy as np
from dlassets.images.resampling import FEW, resize
photo = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
shown = {resize(photo, 4).tobytes() for _ in range(FEW)}
print("torch" in sys.modules)
print({resize(photo, 4).tobytes()} == shown, "torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True", "True"]
