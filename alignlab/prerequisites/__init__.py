"""What a job needs before it starts: named in the config, found from an earlier run, or made."""
