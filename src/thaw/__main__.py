"""`python -m thaw`: the command `thaw`."""

import sys

from thaw.cli import main

sys.exit(main())
