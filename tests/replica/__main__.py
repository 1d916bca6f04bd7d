"""``python tests/replica FOLDER [small|large]`` writes a replica into FOLDER and prints the path of its config."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from replica import config

if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    print(config.write(folder, config.SMALL if sys.argv[2:] == ["small"] else config.LARGE))
