"""Questions of a capacity planner: what fits, how fast, what it serves, and what that costs."""
