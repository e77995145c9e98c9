"""`python -m jobs.sample_book`: the door for `ray job submit`; the same as `rlaif sample-book`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample-book", *sys.argv[1:]]))
