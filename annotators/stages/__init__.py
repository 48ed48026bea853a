"""One pass, added up: from a recording to the cost of a stage, its modules and its ops."""
