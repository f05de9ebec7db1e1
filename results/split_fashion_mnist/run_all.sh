#!/bin/sh
# All runs of the table: `sh results/split_fashion_mnist/run_all.sh RUNS DATA`, 20 to 60 s a run on one core.
RUNS=$1; DATA=$2
run() { # scenario, method, network, flags
    for seed in 0 1; do
        sparserl continual --sequence split_fashion_mnist --scenario "$1" --method "$2" --seed $seed $4 \
            --data-dir "$DATA" --run-dir "$RUNS/$1/$2/$3/s$seed" --no-progress
    done
}
for task in "class naive" "class replay" "task naive" "task replay" "task ewc"; do
    run $task convolutions "--learner.convolutions [[16,3,2],[32,3,2]] --learner.hidden 100 --topology.density 0.2"
    run $task sparse "--topology.density 0.0443"
    run $task narrow "--learner.hidden 31 31"
done
