"""The command `headwater`: what puts producer, streaming and batch together."""
