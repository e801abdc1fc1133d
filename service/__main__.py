"""`python -m service`: serve, or run a command."""

import gc
import sys

# What is imported stays. To look through it for rubbish costs an eighth of the start, and a part of a request now and
# then for as long as we run.
gc.disable()
# structlog loads it where it happens to be installed, for traces in colour that we do not write: a seventh of a start.
sys.modules["rich"] = None  # type: ignore[assignment]
from service.commands import main  # noqa: E402

gc.freeze()
gc.enable()

sys.exit(main(sys.argv[1:]))
