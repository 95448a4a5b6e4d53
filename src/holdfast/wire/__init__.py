"""The wire formats that agents and providers speak: parse requests and answers, rewrite what the guard must change. Pure."""
