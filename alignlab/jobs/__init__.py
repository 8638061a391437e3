"""One file an algorithm: load, build, run, record.

Each has `run(plan, run, outcome)`, which returns nothing, and raises ConfigError for what a user can mend.

Args:
    plan: what the command line asks for, resolved.
    run: the folder that the run writes; it also times the run's stages and makes prerequisites.
    outcome: what the job fills in for result.json.
"""
