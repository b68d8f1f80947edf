"""These tests run agents as the kernel's tests do, with certificates of the unit tests'."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("kernel", "unit"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
