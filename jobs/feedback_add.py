"""`python -m jobs.feedback_add`: the door for `ray job submit`; the same as `rlaif feedback add`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["feedback", "add", *sys.argv[1:]]))
