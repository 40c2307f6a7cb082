"""Signal in, labels out: feature extraction, phoneme tokenizer and the processor that joins them."""
