"""What methods against forgetting share; knows layers and the evolver, no learner."""
