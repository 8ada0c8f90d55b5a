"""`python -m tests.faults`, from the top of the repository."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # As pytest has it: the modules of tests/ are imported by their own names.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from faults.command import main

    main()
