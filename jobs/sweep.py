"""`python -m jobs.sweep`: the door for `ray job submit`; the same as `rlaif sweep`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
