"""`python -m jobs.improve`: the door for `ray job submit`; the same as `rlaif improve`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["improve", *sys.argv[1:]]))
