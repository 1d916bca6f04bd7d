"""The parts of the analysis, one file each: what it records of a study, and the quantities of the claims that it gives."""
