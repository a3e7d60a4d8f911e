"""The steps of the pipeline: each reads artifacts, calls one pure function, writes artifacts."""
