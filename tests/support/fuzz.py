"""How many examples a property is tried on: FUZZ_EXAMPLES of the environment, for a long run (with pytest --timeout 0); else few."""

import os

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "50"))
