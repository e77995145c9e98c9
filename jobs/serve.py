"""`python -m jobs.serve`: the door for `ray job submit`; the same as `rlaif serve`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
