"""Where each turn of a session should run: exact plans, rules that do not know the future, and what both cost."""
