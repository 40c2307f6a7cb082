"""The Space's files import each other by their bare names, as they do on the Hub."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "space"))
