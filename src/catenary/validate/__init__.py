"""The campaigns that show what Catenary promises, and the checker that they share."""
