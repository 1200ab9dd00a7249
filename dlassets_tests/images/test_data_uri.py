"""A picture as a URI is the same picture to whoever opens it."""

import io
from urllib.request import urlopen

import pytest
from PIL import Image

from dlassets.images.data_uri import data_uri


@pytest.mark.parametrize(("name", "kind"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_a_uri_holds_the_picture_and_says_its_kind(name, kind):
    out = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(out, name)

    with urlopen(data_uri(out.getvalue())) as opened:
        assert (opened.headers.get_content_type(), opened.read()) == (kind, out.getvalue())
