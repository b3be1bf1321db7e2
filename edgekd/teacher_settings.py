"""Settings of the teacher, or of several: their names and files go together, by comma."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from edgekd.section import InputPath, Section

CacheMode = Literal["auto", "off", "logits", "full"]


class TeacherConfig(Section):
    """The teacher, and how it is adapted to the target data before distillation."""

    name: str = Field(
        default="cnn14",
        description="see 'edgekd teachers', or package.module:factory, a teacher of your own; names by comma: the "
        "average of several",
    )
    weights: InputPath | None = Field(
        default=None,
        description="published weights; None: those that 'edgekd teachers fetch' got, else trained from scratch. Of "
        "several teachers: files by comma, in the order of the names, nothing between two commas for none",
    )
    weights_of: dict[str, InputPath] = Field(default={}, description="weights of several teachers, by name")
    folder: InputPath | None = Field(
        default=None, description="where the module of your own teacher is; None: where you are"
    )
    adaptation: Literal["head", "full", "none"] = Field(
        default="head",
        description="what is trained: a new head, everything, or nothing (adapted to these classes before)",
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="full: rate of the layers at the input, of that of the last; 1: all alike"
    )
    epochs: int = Field(default=60, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    batch_size: int = Field(default=32, ge=2)
    cache: CacheMode = Field(
        default="auto",
        description="what is kept of its answers, on disk; auto: taps too (full) where they fit, else logits",
    )

    @model_validator(mode="before")
    @classmethod
    def _weights_by_name(cls, values: Any) -> Any:
        """Files by comma go to the names that they are in the order of."""
        if not isinstance(values, dict) or not isinstance(values.get("name"), str) or not values.get("weights"):
            return values
        names = _names(values["name"])
        if len(names) < 2:
            return values
        files = [file.strip() for file in str(values["weights"]).split(",")]
        if len(files) != len(names):
            raise ValueError(
                f"weights: {len(files)} for {len(names)} teachers: name one for each, by comma, or nothing between two "
                "commas"
            )
        given = {name: file for name, file in zip(names, files, strict=True) if file}
        return {**values, "weights": None, "weights_of": {**values.get("weights_of", {}), **given}}

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> Self:
        names = _names(self.name)
        if not all(names) or len(set(names)) != len(names):
            raise ValueError(f"name = {self.name!r}: names by comma, each once")
        unknown = [name for name in self.weights_of if len(names) < 2 or name not in names]
        if unknown:
            raise ValueError(f"weights_of: {', '.join(unknown)}: not one of several teachers ({self.name})")
        return self

    def members(self) -> tuple[TeacherConfig, ...]:
        """These settings for each teacher alone; where there is one, as they are."""
        names = _names(self.name)
        if len(names) == 1:
            return (self,)
        return tuple(
            self.model_copy(update={"name": name, "weights": self.weights_of.get(name), "weights_of": {}})
            for name in names
        )


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]
