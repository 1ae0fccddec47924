"""`python -m interp` is the command `interp`."""

import sys

if __name__ == "__main__":
    from interp.cli.main import main

    sys.exit(main())
