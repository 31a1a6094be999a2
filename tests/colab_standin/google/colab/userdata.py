class SecretNotFoundError(Exception):
    pass


def get(name):
    raise SecretNotFoundError(name)
