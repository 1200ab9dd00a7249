"""Sets of sample photos: generated, fetched, unpacked."""
