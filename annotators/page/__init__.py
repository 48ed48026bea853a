"""One page of HTML that evaluates cost sheets in a browser, offline."""
