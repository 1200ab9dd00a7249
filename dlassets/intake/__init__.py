"""Landing zones to `raw_images`: listed, watched, taken in, refused."""
