"""`python -m jobs.train_thesis`: the door for `ray job submit`; the same as `rlaif train-thesis`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-thesis", *sys.argv[1:]]))
