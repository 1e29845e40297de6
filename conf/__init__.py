"""Environments and contracts, as data."""
