"""SIGKILLs at random instants: two replicas of the real service under traffic, and commands.

`python -m tests.faults.kills --engine sqlite --kills 500 --seed 1`. An oracle outside of the
service has a list of its own of what was acknowledged, and compares it after each kill.
"""
