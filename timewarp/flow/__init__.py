"""The flow: charts, networks and the distributions they return."""
