"""The one place of the version. Read by the build, by the `_server` context and by users."""

__version__ = "0.1.0"
