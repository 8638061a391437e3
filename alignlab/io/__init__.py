"""Files that are whole or not there, record logs, HTTP clients."""
