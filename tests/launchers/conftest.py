"""The helper that runs the real command lies with the tests of the jobs."""
