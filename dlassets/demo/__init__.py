"""The whole loop on photos, with a played annotator."""
