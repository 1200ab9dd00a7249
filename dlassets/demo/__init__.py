"""The main job from end to end on one lake, with a played annotator, as a newcomer would first see it."""
