"""Photos as browsers are to have them: decoded, made smaller and encoded again, never a file's own bytes."""

from __future__ import annotations

import io
import re
import threading

from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dlassets.images.decode import ImageError, decode_rgb
from dlassets.monitoring.views.photos import paths_of
from dlassets.monitoring.views.reading import Reading
from dlassets.settings import Settings

LONGEST_SIDE = 1000
# Photos that are decoded at once: a large one takes hundreds of MB meanwhile.
_AT_ONCE = threading.BoundedSemaphore(2)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


def routes(settings: Settings) -> list[Route]:
    def picture(request: Request) -> Response:
        image_id = request.path_params["image_id"]
        reading = Reading(settings)
        data = reading.photo(paths_of(reading, image_id)) if _IMAGE_ID.fullmatch(image_id) else None
        if data is None:
            raise HTTPException(404, "The lake has no photo of this name, or no longer has its bytes.")
        # What has this name has these bytes, for ever.
        return Response(smaller(data), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return [Route("/photo/{image_id}.jpg", picture)]


def smaller(data: bytes, longest_side: int = LONGEST_SIDE) -> bytes:
    """Return a photo as a JPEG of so many pixels a side at most. Raises HTTPException for one that does not decode."""
    with _AT_ONCE:
        try:
            image = Image.fromarray(decode_rgb(data, at_least=longest_side))
        except ImageError as error:
            raise HTTPException(404, f"The photo cannot be shown. {error}") from error
        image.thumbnail((longest_side, longest_side), reducing_gap=2.0)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=85)
        return out.getvalue()
