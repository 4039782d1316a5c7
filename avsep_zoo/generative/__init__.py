"""Generative separation: a driver makes magnitudes out of noise with a network it calls step by step.

The driver knows schedules, losses and solvers and nothing of networks; the network is any
:class:`~avsep_zoo.generative.contract.DrivenSeparator` and knows nothing of drivers.
"""
