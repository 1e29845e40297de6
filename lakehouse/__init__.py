"""What producer, streaming and batch share. It imports none of them."""
