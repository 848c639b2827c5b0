"""Decide whether the machine may take heavy work now: adapters read devices, policies decide.

This package never imports `models`, nor `models` it.
"""
