"""The families of metrics, one file each; `monitor.exposition.catalogue` lists them."""
