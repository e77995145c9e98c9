"""`python -m jobs.pipeline`: the door for `ray job submit`; the same as `rlaif pipeline`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
