"""`python -m jobs.data_compact`: the door for `ray job submit`; the same as `rlaif data compact`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "compact", *sys.argv[1:]]))
