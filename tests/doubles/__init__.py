"""Independent test doubles: written from the specifications, not from our own simulators."""
