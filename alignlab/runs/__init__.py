"""What a run leaves behind: its folder, its record, its log, its progress."""
