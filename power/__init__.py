"""May the machine take heavy work now? Readings come through doors, `gate` decides, purely.

This room never meets `models`.
"""
