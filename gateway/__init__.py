"""A transparent, light gateway in front of one shared GMI Cloud account."""

__version__ = "0.1.0"
