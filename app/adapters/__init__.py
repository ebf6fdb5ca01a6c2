"""One file per way to reach a meter."""
