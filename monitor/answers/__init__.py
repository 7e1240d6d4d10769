"""What is told of clusters, groups and topics as data: by the API and by `--output json` alike."""
