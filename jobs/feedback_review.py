"""`python -m jobs.feedback_review`: the door for `ray job submit`; the same as `rlaif feedback review`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["feedback", "review", *sys.argv[1:]]))
