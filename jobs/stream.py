"""`python -m jobs.stream`: the door for `ray job submit`; the same as `rlaif stream`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["stream", *sys.argv[1:]]))
