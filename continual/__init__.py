"""Continual learners: one learner, a sequence of tasks, and a strategy at the borders between them.

They share `sparserl.topology` with the agents and reimplement nothing of it: what a method keeps, freezes or closes, it
says as a constraint or an importance.
"""
