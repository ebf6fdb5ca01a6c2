"""Meters and clients written by others, each in a process of its own."""
