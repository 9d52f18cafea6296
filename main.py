"""Trains a U-Net on a folder of photos and masks: `python main.py --epochs 10`, or `--help` for the rest."""

from semseg.cli import end, main

if __name__ == "__main__":
    end(main())
