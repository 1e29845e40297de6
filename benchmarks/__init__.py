"""Measurements: each a ratio inside one run, asserted nowhere."""
