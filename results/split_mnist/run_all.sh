#!/bin/sh
# All runs of the tables: `sh results/split_mnist/run_all.sh RUNS DATA`, about 30 minutes on one core.
RUNS=$1; DATA=$2
run() { # scenario, method, name, flags, seeds
    scenario=$1; method=$2; name=$3; flags=$4; shift 4
    for seed in "$@"; do
        sparserl continual --sequence split_mnist --scenario "$scenario" --method "$method" --seed "$seed" $flags \
            --data-dir "$DATA" --run-dir "$RUNS/$scenario/$name/s$seed" --no-progress
    done
}
for method in spacenet static_sparse; do run class $method $method "" 13 0 1 2 3 4 5 6 7 8; done
for method in naive joint l2 ewc online_ewc si mas lwf replay agem; do run class $method $method "" 0 1 2 3 4; done
run class lwf lwf_0.125 "--lwf.alpha 0.125" 0 1 2 3 4
for method in naive l2 ewc online_ewc si mas lwf replay agem packnet spacenet static_sparse; do
    run task $method $method "" 0 1 2 3 4
done
run task naive naive_sgd "--learner.optimizer sgd --learner.learning-rate 0.01" 0 1 2 3 4
for seed in 0 1 2 3 4 5 6 7 8 9; do for method in afaf wsn nispa; do run task $method $method "" $seed; done; done
for seed in 0 1 2 3 4 5 6 7 8 9; do run class afaf afaf "" $seed; done
run class nispa nispa "" 0 1 2
