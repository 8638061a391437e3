"""From files, the hub or the toy world to the one record, split by prompt."""
