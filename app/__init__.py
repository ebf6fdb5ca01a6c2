"""Meterwright's core: everything but the window. It never imports Qt."""
