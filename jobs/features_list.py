"""`python -m jobs.features_list`: the door for `ray job submit`; the same as `rlaif features list`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["features", "list", *sys.argv[1:]]))
