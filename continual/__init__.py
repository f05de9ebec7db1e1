"""Continual learners: one learner, a sequence of tasks, and a strategy at the borders between them.

They share `sparserl.topology` with the agents and reimplement nothing of it. The modules of this
package arrive together with the first strategy.
"""
