#!/bin/sh
# sh results/methods/run_all.sh RUNS: eight methods of topology and a narrow dense net, three seeds each, one run at a time.
set -e
mkdir -p "$1"
cd "$1"
for seed in 0 1 2; do
  for method in ds_td3 static rigl dsr mest ctre srigl granet_sparse; do
    sparserl train --algo ds_td3 --env HalfCheetah-v5 --total-steps 200000 --topology.density 0.1 \
      --topology.method $method --seed $seed --run-dir "$method-s$seed"
  done
  sparserl train --algo td3 --env HalfCheetah-v5 --total-steps 200000 --agent.net-arch 77 77 \
    --seed $seed --run-dir "narrow-s$seed"
done
