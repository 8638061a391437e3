"""Preference pairs that a policy makes itself: its answers, their scores, and which two of them are compared."""
