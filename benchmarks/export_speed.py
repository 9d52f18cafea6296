"""How much faster exported files run than their torch model, and what 8 bits cost in mean IoU.

A finished run is exported as ONNX and OpenVINO, in float32 and in int8; `semseg export` itself compares each file with
the model: the same photos of the run's validation split, one at a time, with the same number of threads.

    OMP_NUM_THREADS=2 python benchmarks/export_speed.py RUN
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1]))

from semseg.cli import commands

KINDS = {"onnx": ".onnx", "openvino": ".xml"}


def exports(run: Path) -> tuple[float, float]:
    """Prints a table; returns the best factor in speed, and the loss of mean IoU of the fastest int8 file."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, suffix in KINDS.items():
            for flags in ((), ("--int8",)):
                target = Path(folder) / f"{name}{'_int8' if flags else ''}{suffix}"
                if commands(["export", str(run), "--format", name, "--output", str(target), *flags]):
                    sys.exit(f"{target.name} failed")
        for name, entry in json.loads((Path(folder) / "export.json").read_text()).items():
            found = entry["compared"]
            before, after = found["milliseconds"]
            iou = found["iou"] or (float("nan"),) * 2
            rows.append((entry["precision"], before / after, iou[0] - iou[1], name, before, after, found["equal_ids"]))
    print(f"{'file':20} {'torch ms':>9} {'file ms':>9} {'times':>6} {'equal ids':>10} {'IoU lost':>9}")
    for _, times, loss, name, before, after, equal in rows:
        print(f"{name:20} {before:9.1f} {after:9.1f} {times:6.1f} {equal:10.3%} {loss:9.4f}")
    best_int8 = max(row[:3] for row in rows if row[0] == "int8")
    return max(row[1] for row in rows), best_int8[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run, whose data are still there")
    factor, loss = exports(parser.parse_args().run)
    print(f"RESULT export={factor:.2f} int8_miou_loss={loss:.4f}")


if __name__ == "__main__":
    main()
