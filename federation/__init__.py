"""The federated job: the pure round state machine, the coordinator that drives it and the agent that
acts for one silo.
"""
