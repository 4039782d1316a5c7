"""``python -m avsep_zoo``: the command line."""

from avsep_zoo.cli import main

if __name__ == "__main__":
    main()
