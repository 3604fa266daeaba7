"""Connectors behind one interface: whatever a shop has, in the columns of the contract."""
