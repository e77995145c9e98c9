"""`python -m jobs.feedback_list`: the door for `ray job submit`; the same as `rlaif feedback list`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["feedback", "list", *sys.argv[1:]]))
