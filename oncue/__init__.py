"""Background jobs for FastAPI, right on cue."""

__version__ = "0.1.0"
