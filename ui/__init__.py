"""The window: thin, Qt only, no truth kept. Importing this package alone imports no Qt."""
