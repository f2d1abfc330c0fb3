"""One request, asked of a runner to its end: across crashed runners, and across clients that come back for their answer."""
