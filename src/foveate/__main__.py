"""``python -m foveate`` is the ``foveate`` command."""

import sys

from foveate.cli import main

sys.exit(main())
