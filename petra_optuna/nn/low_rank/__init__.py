"""Low-rank factors of linear, convolution, embedding and recurrent layers."""
