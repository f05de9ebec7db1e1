#!/bin/sh
# All runs of "With 200 and 500 stored samples": `sh results/split_mnist/small_memories.sh RUNS DATA`, 9 minutes of one core.
RUNS=$1; DATA=$2
run() { # name, seed, flags
    name=$1; seed=$2; shift 2
    sparserl continual "$@" --seed "$seed" --data-dir "$DATA" --run-dir "$RUNS/$name/s$seed" --no-progress
}
for seed in 0 1; do
    for samples in 200 500; do
        for method in icarl der replay; do
            run ${method}_$samples $seed --sequence split_mnist --method $method --$method.samples $samples
        done
        run derpp_$samples $seed --sequence split_mnist --method der --der.samples $samples --der.beta 0.5
        run agem_$samples $seed --sequence split_mnist --method agem --agem.samples-per-task $((samples / 5))
    done
    run buzzega_der_500 $seed --preset split_mnist_buzzega
    run buzzega_der_200 $seed --preset split_mnist_buzzega --der.samples 200 --der.alpha 0.2 --der.batch-size 10
    run buzzega_derpp_500 $seed --preset split_mnist_buzzega --der.beta 0.5 --der.batch-size 10
    run buzzega_derpp_200 $seed --preset split_mnist_buzzega --der.samples 200 --der.alpha 0.2 --der.beta 1
done
