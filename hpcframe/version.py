"""Which hpcframe this is."""

from importlib import metadata


def version() -> str:
    """The installed version, or "unknown" where the package runs from a folder that was never installed."""
    try:
        return metadata.version("hpcframe")
    except metadata.PackageNotFoundError:
        return "unknown"
