"""What is done with measured values: derived curves, statistics, accuracy, files of curves. Arrays and nouns; no Qt, no log."""
