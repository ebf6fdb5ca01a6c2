"""Measured values: derived curves, statistics, accuracy, files of curves. Arrays and nouns; no Qt, no log."""
