"""tests.flows.deployed"""
