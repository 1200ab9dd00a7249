"""Files of other labelling services: requests written as each of them reads them, and their answers taken in.

A format is a module with one class (`base.FileFormat`); `registry` has them all.
"""
