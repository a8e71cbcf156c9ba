"""``python -m app.demo DIR``: save pictures of the dashboard in ``DIR`` (``make screenshots``)."""

import sys
from pathlib import Path

from app.demo.screenshots import take

if __name__ == "__main__":
    for path in take(Path(sys.argv[1])):
        print(path)
