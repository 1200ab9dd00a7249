"""What was refused, in SQL over `quarantined_files`, `raw_images` and `deleted_files`: what each row of it is today."""

from dlassets import __version__

# What came later is told by the batches' numbers, of which a zone's are in order. A file's own time would not do: a
# copy that keeps its source's time may replace a broken one, and be the older of the two. A photo that a step failed
# for was taken in: it is of the past once its path has other bytes, or another version of the code has its turn.
REFUSALS = f"""
    SELECT refused.*, CASE
        WHEN refused.place > 1 OR taken_in.path IS NOT NULL THEN 'superseded'
        WHEN refused.dropped_at IS NOT NULL THEN 'dropped'
        WHEN gone.path IS NOT NULL THEN 'gone'
        WHEN refused.code_version <> '{__version__}' THEN 'superseded'
        ELSE 'quarantined' END AS state
    FROM (
        SELECT quarantined_files.*, ROW_NUMBER() OVER (
            PARTITION BY path ORDER BY batch_id DESC, modificationTime DESC, length DESC) AS place
        FROM quarantined_files) AS refused
    LEFT JOIN raw_images AS taken_in ON taken_in.path = refused.path AND (
        (refused.stage IS NULL AND taken_in.batch_id >= refused.batch_id)
        OR (refused.stage IS NOT NULL AND taken_in.image_id <> refused.image_id))
    LEFT JOIN deleted_files AS gone ON gone.path = refused.path AND gone.returned_at IS NULL
"""  # noqa: S608 - constants

# The rows that are of today.
QUARANTINED = f"SELECT * FROM ({REFUSALS}) AS states WHERE state = 'quarantined'"  # noqa: S608 - constants

# SQL over `quarantined_files`: the images that a step of this version failed for, or that nobody wants since one did.
FAILED = f"""
    SELECT image_id FROM quarantined_files
    WHERE stage IS NOT NULL AND image_id IS NOT NULL AND (dropped_at IS NOT NULL OR code_version = '{__version__}')
"""  # noqa: S608 - constants
