"""`python -m jobs.validate`: the door for `ray job submit`; the same as `rlaif validate`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["validate", *sys.argv[1:]]))
