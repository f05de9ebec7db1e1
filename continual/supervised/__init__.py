"""Classifiers that learn a sequence of tasks: data, tasks, the learner and its methods."""
