"""`python -m service`: serve, or run a command."""

import sys

from service.commands import main

sys.exit(main(sys.argv[1:]))
