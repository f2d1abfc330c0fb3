"""What Prometheus is told. The manager counts for the whole service: it is one process, however many gateway workers there are."""
