"""Tasks of event sequences of clients: financial transactions, purchases, monthly statements."""



