"""`python -m lanewise` is `lanewise`."""

from __future__ import annotations

import sys

from lanewise.cli.main import main

sys.exit(main())
