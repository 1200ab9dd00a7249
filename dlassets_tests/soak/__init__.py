"""Random operations and faults, and what must come of them: `make soak` runs as much as is asked for, tests a little.

`files` takes files in and compares the tables with a plain model; `lakes` harms whole lakes and compares them with a
sound one; `stores` kills and races the making of Dagster's and MLflow's stores.
"""
