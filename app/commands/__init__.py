"""The verbs of the command line (design.md section 5). Headless: nothing here imports Qt."""
