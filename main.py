"""Trains a U-Net on a folder of photos and masks: `python main.py --epochs 10`, or `--help` for the rest."""

import sys

from semseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
