"""`python -m benchmarks ingest`: taking photos in, beside what else would do it, on the same photos in one run."""
