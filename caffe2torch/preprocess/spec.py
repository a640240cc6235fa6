"""What a net wants done to a picture before it sees it: one frozen value that a manifest or a results file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from caffe2torch.errors import UsageError

DIALECTS = ("matcaffe", "transformer", "pycaffe")


@dataclass(frozen=True)
class Spec:
    """All of a net's preprocessing; sizes and offsets are (height, width) in pixels, values are grey levels 0..255.

    ``dialect`` names whose arithmetic is followed: ``matcaffe`` (the MATLAB evaluation of both papers), ``transformer``
    (Caffe's C++ DataTransformer) or ``pycaffe`` (``caffe.io.Transformer`` and ``caffe.Classifier``).

    ``crop_offset`` is where the crop's top left pixel lies; None is the dialect's centre: floor((size - crop + 1) /
    2) in matcaffe (15 for 227 of 256), floor((size - crop) / 2) in the other two (14).

    A mean is either ``mean_file`` (the array is handed to `make`; this is only its name) or ``mean_values`` (one for
    all channels, or one a channel); both are in the net's channel order. ``mean_layout`` says how the mean image is
    subtracted: ``hwc`` upright, ``whc`` with rows and columns exchanged. ``whc`` reproduces the evaluation of SSDH,
    whose ``.mat`` file holds [W, H, C] and was subtracted from pictures in [H, W, C].

    ``scale`` multiplies after the mean is subtracted. ``raw_scale`` is pycaffe's factor on values in 0..1 before the
    mean (None: values stay in 0..1, 255: grey levels). ``mirror`` flips at random where a generator is given, in
    transformer only.
    """

    dialect: str
    channels: int = 3
    order: str = "bgr"
    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    crop_offset: tuple[int, int] | None = None
    mean_file: str | None = None
    mean_values: tuple[float, ...] | None = None
    mean_layout: str = "hwc"
    scale: float = 1.0
    raw_scale: float | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        _one_of("dialect", self.dialect, DIALECTS)
        _one_of("channels", self.channels, (1, 3))
        _one_of("order", self.order, ("bgr", "rgb"))
        _one_of("mean_layout", self.mean_layout, ("hwc", "whc"))
        if self.mean_file is not None and self.mean_values is not None:
            raise UsageError("preprocessing: mean_file and mean_values exclude each other")
        if self.mean_values is not None and len(self.mean_values) not in (1, self.channels):
            raise UsageError(
                f"preprocessing: mean_values has {len(self.mean_values)} numbers, expected 1 or {self.channels}"
            )
        if self.mean_layout == "whc" and self.mean_file is None:
            raise UsageError("preprocessing: mean_layout 'whc' transposes a mean image, but there is no mean_file")
        self._check_places()
        self._check_dialect()

    def _check_places(self) -> None:
        for name, smallest in (("resize", 1), ("crop", 1), ("crop_offset", 0)):
            pair = getattr(self, name)
            if pair is not None and min(pair) < smallest:
                raise UsageError(f"preprocessing: {name} is {pair}, expected (height, width) of at least {smallest}")
        if self.crop is None:
            if self.crop_offset is not None:
                raise UsageError("preprocessing: crop_offset without crop")
        elif self.resize is not None:
            for axis in (0, 1):
                offset = self.crop_offset[axis] if self.crop_offset else 0
                if offset + self.crop[axis] > self.resize[axis]:
                    raise UsageError(
                        f"preprocessing: crop {self.crop} at {self.crop_offset or 'the centre'} does not fit into "
                        f"pictures resized to {self.resize}"
                    )

    def _check_dialect(self) -> None:
        if self.dialect != "transformer":
            if self.resize is None:
                raise UsageError(
                    f"preprocessing: dialect {self.dialect} needs resize, the size all pictures are brought to"
                )
            if self.mirror:
                raise UsageError(f"preprocessing: mirror is of dialect transformer, not of {self.dialect}")
        if self.dialect != "pycaffe" and self.raw_scale is not None:
            raise UsageError(f"preprocessing: raw_scale is of dialect pycaffe, not of {self.dialect}; use scale")
        if self.dialect == "matcaffe" and self.channels != 3:
            raise UsageError("preprocessing: dialect matcaffe always makes three channels")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """A Spec from plain values as TOML or JSON hold them; a size may be one number (square) or [height, width].

        Raises UsageError for a key that does not exist, a missing dialect, and a value of the wrong type.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UsageError(f"preprocessing: unknown key {', '.join(unknown)}; known are {', '.join(known)}")
        if "dialect" not in values:
            raise UsageError(f"preprocessing: no dialect; expected one of {', '.join(DIALECTS)}")
        return cls(**{name: _typed(name, value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` takes back to an equal Spec; keys at their default are left out."""
        result: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                result[field.name] = list(value) if isinstance(value, tuple) else value
        return result


def crop_place(spec: Spec, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is kept of a picture of ``size``; the whole picture without a crop.

    The caller has checked that the crop fits.
    """
    if spec.crop is None:
        return 0, 0, *size
    if spec.crop_offset is not None:
        return *spec.crop_offset, *spec.crop
    odd = 1 if spec.dialect == "matcaffe" else 0  # MATLAB: floor((size - crop + 1) / 2) + 1, counted from 1
    return (size[0] - spec.crop[0] + odd) // 2, (size[1] - spec.crop[1] + odd) // 2, *spec.crop


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"preprocessing: {name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")


def _typed(name: str, value: Any) -> Any:
    """The value of one key with the type its field has, or UsageError."""
    if value is None:
        return None
    if name in ("resize", "crop", "crop_offset"):
        pair = (value, value) if _is_int(value) else tuple(value) if isinstance(value, (list, tuple)) else ()
        if len(pair) == 2 and all(_is_int(number) for number in pair):
            return pair
        raise UsageError(f"preprocessing: {name} is {value!r}, expected [height, width] as whole numbers")
    if name == "mean_values":
        if isinstance(value, (list, tuple)) and all(_is_number(number) for number in value):
            return tuple(float(number) for number in value)
        raise UsageError(f"preprocessing: mean_values is {value!r}, expected a list of numbers")
    if name in ("scale", "raw_scale"):
        if _is_number(value):
            return float(value)
        raise UsageError(f"preprocessing: {name} is {value!r}, expected a number")
    kind = {"channels": int, "mirror": bool}.get(name, str)
    if type(value) is not kind:
        raise UsageError(f"preprocessing: {name} is {value!r}, expected {kind.__name__}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
