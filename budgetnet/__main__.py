"""``python -m budgetnet``."""

import sys

from budgetnet.cli.main import main

sys.exit(main())
