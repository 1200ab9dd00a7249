"""One page of pictures to look at: by class, by what is wrong with them, by near duplicates, and what was refused.

It is made of the tables' narrow columns and the thumbnails of those few that are shown, so it costs a few queries and
has a few megabytes however large the lake is.
"""

from dlassets.monitoring.gallery.page import Gallery, write_gallery

__all__ = ["Gallery", "write_gallery"]
