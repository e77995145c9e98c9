"""`python -m jobs.track`: the door for `ray job submit`; the same as `rlaif track`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["track", *sys.argv[1:]]))
