"""The counted proof: orders under random crashes, then every one of them accounted for."""
