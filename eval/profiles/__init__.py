"""What makes a profile good, a module a question: is it grounded, specific, telling, useful, stable, fresh, ...?"""
