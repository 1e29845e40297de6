"""The command `headwater`: what puts producer, streaming and batch together."""

__version__ = "0.1.0"
