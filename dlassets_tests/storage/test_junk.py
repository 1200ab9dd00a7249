"""What storage, systems and programs leave beside photos is known by its name."""

import re

import pytest

from dlassets.settings import JUNK
from dlassets.storage.junk import Junk

LEFT_BEHIND = """
System Volume Information/a.jpg  Network Trash Folder/a.jpg
@eaDir/SYNOPHOTO_THUMB_XL.jpg  001.cat/@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg  #recycle/a.jpg  #snapshot/daily/a.jpg
.@__thumb/s800a.jpg  @Recycle/a.jpg  @Recently-Snapshot/1/a.jpg  .snapshot/hourly/a.jpg  .zfs/snapshot/a.jpg
lost+found/1
Thumbs.db  THUMBS.DB  ehthumbs.db  desktop.ini  Desktop.ini  $RECYCLE.BIN/S-1-5/a.jpg  $Recycle.Bin/a.jpg  ~$list.xlsx
.DS_Store  ._a.jpg  .Spotlight-V100/a  .Trashes/501/a.jpg  .Trash-1000/files/a.jpg  __MACOSX/a.jpg  .AppleDouble/a.jpg
a.jpg.part  a.jpg.crdownload  a.jpg.tmp  a.jpg.TMP  .a.jpg.swp  a.swp  a.jpg~  a.jpg.filepart  a.jpg.download  #a.jpg#
a.jpg.partial  a.jpg.opdownload  .~lock.a#  a.jpg.aria2  a.jpg.!qB  Picasa.ini  _SUCCESS  .git/a.jpg
"""
PHOTOS = "a.jpg 001.cat/b.JPG part/c.jpg tmp/d.jpg partial.jpg download.png #1.jpg a~b.jpg $1.jpg c_/@f.jpg"


@pytest.mark.parametrize("path", re.split(r"\s\s+|\n", LEFT_BEHIND.strip()))
def test_what_is_left_behind_is_junk(path: str) -> None:
    assert Junk(JUNK).holds(path)


@pytest.mark.parametrize("path", PHOTOS.split())
def test_photos_by_names_that_are_alike_are_not(path: str) -> None:
    assert not Junk(JUNK).holds(path)


def test_the_list_is_a_setting_and_what_is_left_out_is_counted() -> None:
    junk = Junk(["Draft*", "?.raw", "*.XMP", "[ab]c"])

    found = [name for name in ("draft 1", "a.raw", "ab.raw", "a.xmp", "ac", "cc", "Thumbs.db") if junk.leaves_out(name)]

    assert found == ["draft 1", "a.raw", "a.xmp", "ac"]
    assert junk.met == len(found)
