#!/usr/bin/env bash
# The search, its finals, and the reference trained as the paper says; each goes on where it stopped.
#
#     studies/cifar10-search/search.sh arrays:cifar10.npz runs/cifar10-search
set -euo pipefail
data=${1:?which data: cifar10, or arrays:FILE.npz} out=${2:?which folder for the runs}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

budgetnet search --max-params 5e6 --data "$data" --out "$out/search" --device cuda --per-gpu 2 \
    --space "$here/space.yaml" --recipe "$here/recipe.yaml" --trials 30 \
    --enqueue reference --enqueue preact-resnet-20x4 --enqueue wrn-16-4 --enqueue resnext-29-32x4d \
    --finalists 3 --final-seeds 3 --final-recipe "$here/final.yaml"
budgetnet leaderboard --out "$out/search" --json > "$out/leaderboard.json"

# The reference alone, as a finalist of its own: its candidate's training is as short as can be, its finals are the point.
budgetnet search --max-params 5e6 --data "$data" --out "$out/reference" --device cuda --per-gpu 3 \
    --space "$here/space.yaml" --recipe "$here/recipe.yaml" --epochs 2 --trials 1 --enqueue reference \
    --finalists 1 --final-seeds 3 --final-recipe paper
budgetnet leaderboard --out "$out/reference" --json > "$out/reference.json"
