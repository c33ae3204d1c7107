"""What is not as it should be: demand, stock, counts, prices and suppliers against what is usual."""
