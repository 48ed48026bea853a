"""Recording one pass: every op that runs, identical layers once."""
