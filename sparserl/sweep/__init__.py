"""Many runs: grids, seeds and searches, in processes of this machine, on a Ray cluster or as Slurm jobs."""
