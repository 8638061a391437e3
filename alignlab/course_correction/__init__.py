"""Course-correction: does a model that was made to begin a harmful answer turn back?"""
