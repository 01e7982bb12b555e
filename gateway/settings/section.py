"""What all sections of the settings are: frozen, and without room for what nobody knows."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of settings. A key that it does not have is refused; what was given is in no error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
