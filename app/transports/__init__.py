"""Byte movers."""
