"""One file an algorithm: load, build, run, record.

Each has `run(plan, run, outcome)`: `plan` is what the command line asks for, resolved; `run` the folder that the run
writes, which also times its stages and makes prerequisites; `outcome` what the job fills in for result.json. A job
returns nothing, and raises ConfigError for what a user can mend.
"""
