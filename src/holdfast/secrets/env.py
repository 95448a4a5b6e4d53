"""`env:NAME`: a variable of Holdfast's own environment."""

from holdfast.errors import SecretError
from holdfast.secrets import Found, SecretSource, Surroundings


class Environment:
    def read(self, name: str, surroundings: Surroundings) -> Found:
        value = surroundings.environment.get(name)
        if value is None:
            raise SecretError(f"the environment variable {name} is not set")
        return Found(value)


PLUGIN: SecretSource = Environment()
