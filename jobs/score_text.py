"""`python -m jobs.score_text`: the door for `ray job submit`; the same as `rlaif score-text`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["score-text", *sys.argv[1:]]))
