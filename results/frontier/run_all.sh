#!/bin/sh
# sh results/frontier/run_all.sh RUNS: all methods, class-incremental, on split MNIST and split Fashion-MNIST, under $SPARSERL_DATA.
RUNS=$1
run() { # sequence, name, method, seed, flags
    sequence=$1; name=$2; method=$3; seed=$4; shift 4
    [ -e "$RUNS/$sequence/$name/s$seed" ] || sparserl continual --sequence "$sequence" --scenario class --method "$method" \
        --seed "$seed" "$@" --run-dir "$RUNS/$sequence/$name/s$seed" --no-progress
}
for sequence in split_mnist split_fashion_mnist; do
    run $sequence nearest_mean nearest_mean 0
    run $sequence nearest_mean_unit nearest_mean 0 --nearest-mean.unit-norm
    for r in 2 5 7 10 20; do run $sequence class_pca_$r class_pca 0 --class-pca.components $r; done
    run $sequence class_pca_10_likelihood class_pca 0 --class-pca.score likelihood
    for pair in "7 300" "10 350" "12 400" "16 400"; do
        run $sequence "class_pca_${pair% *}_of_${pair#* }" class_pca 0 --class-pca.components ${pair% *} --class-pca.inputs ${pair#* }
    done
    for pair in "5 1600" "10 2500" "20 4000"; do
        run $sequence "class_pca_${pair% *}_at_${pair#* }" class_pca 0 --class-pca.components ${pair% *} --class-pca.connections ${pair#* }
    done
    for pair in "15 1500" "20 2500" "20 4000"; do
        run $sequence "class_autoencoder_${pair% *}_at_${pair#* }" class_autoencoder 0 --class-autoencoder.components ${pair% *} \
            --class-autoencoder.connections ${pair#* }
    done
    run $sequence class_autoencoder_kept class_autoencoder 0 --class-autoencoder.drop-fraction 0
    for seed in 0 1 2 3 4 5 6 7 8 9; do # from a random topology: connections stay, move at random, move by gradient
        random="--class-autoencoder.initial-topology random"
        run $sequence class_autoencoder_random_static class_autoencoder $seed $random --class-autoencoder.drop-fraction 0
        run $sequence class_autoencoder_random_set class_autoencoder $seed $random --class-autoencoder.grow random
        run $sequence class_autoencoder_random_rigl class_autoencoder $seed $random
    done
    run $sequence streaming_lda streaming_lda 0
    run $sequence ridge ridge 0
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        for units in 250 380 1000; do
            run $sequence random_features_$units random_features $seed --random-features.units $units
        done
        for units in 2000 4000; do run $sequence fly_code_$units fly_code $seed --fly-code.units $units; done
    done
    for seed in 0 1 2 3 4 5 6 7 8 9; do
        for method in spacenet static_sparse; do run $sequence $method $method $seed; done
        run $sequence spacenet_statistics spacenet $seed --spacenet.answers statistics
        run $sequence afaf afaf $seed --preset split_mnist_afaf
    done
    for seed in 0 1 2; do
        run $sequence nispa nispa $seed --preset split_mnist_nispa
        for method in icarl der; do run $sequence ${method}_500 $method $seed --$method.samples 500; done
    done
    for method in naive joint l2 ewc online_ewc si mas lwf replay agem; do run $sequence $method $method 0; done
done
