"""`python -m jobs.build_features`: the door for `ray job submit`; the same as `rlaif build-features`."""

import sys

from rlaif_ray.cli import main

if __name__ == "__main__":
    sys.exit(main(["build-features", *sys.argv[1:]]))
