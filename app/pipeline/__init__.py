"""Verbs, in the order a command meets them (ARCHITECTURE.md)."""
