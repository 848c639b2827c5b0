"""Policies: the gate, a person's override, deadlines, power caps and admission."""
