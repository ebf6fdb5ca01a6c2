"""Entry of the packaged program; the wheel's ``meterwright`` command calls the same function."""

from __future__ import annotations

import multiprocessing
import sys

from ui.__main__ import main

if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main())
