"""Each Kafka API in one file: its question, the request, how the reply is read, the answer."""
