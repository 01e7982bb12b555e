"""How much: rates, parallel calls and money, in this process's memory or shared in Redis."""
