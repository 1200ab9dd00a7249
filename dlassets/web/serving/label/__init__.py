"""The page on which people label: a photo at a time, the model's guess first. A part of the served app, or alone.

What it shows is read of the lake as it stands. What it takes goes into the folder of answers, as lines of JSON, and
from there the way of all answers.
"""
