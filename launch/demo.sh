#!/usr/bin/env bash
# Sets up, makes a demo cohort of DICOM files, runs the whole job on it. What is done is not done again.
(  # in a shell of its own: sourced, a failure leaves the terminal open
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]:-$0}")/setup.sh"
demo=runs/demo

step() { printf '\n[%s of 5] %s\n' "$1" "$2"; }
step 1 "a cohort of simulated patients: $demo/dicom"
python -m launch.make_phantom --preset=demo --seed=0 --output="$demo/dicom"
step 2 "DICOM to a dataset: $demo/data"
python -m launch.prepare --input="$demo/dicom" --output="$demo/data"
step 3 "ImageNet weights for Flax: $demo/weights"
python -m launch.convert_weights --model=efficientnet_lite0 --source=lite --output="$demo/weights"
step 4 "transfer, active labelling, report: $demo"
python -m launch.reproduce --config=configs/demo.py --config.weights="$demo/weights" --data="$demo/data" --workdir="$demo"
step 5 "the same networks on another hospital's simulated patients: $demo/external"
python -m launch.make_phantom --preset=demo --site=B --seed=0 --output="$demo/dicom_b"
python -m launch.prepare --input="$demo/dicom_b" --output="$demo/data_b"
python -m launch.evaluate --checkpoint="$demo/transfer/efficientnet_lite0/ce_t1wi" --data="$demo/data_b" \
  --output="$demo/external"
)
