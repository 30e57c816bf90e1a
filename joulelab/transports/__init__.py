"""How bytes reach instruments and engines. Every reply is stamped here, never in a driver."""
