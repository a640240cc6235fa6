"""What a verification found, in words for a person and as plain values for a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe2torch.release.causes import WHY, ZOO
from caffe2torch.release.figures import Measured
from caffe2torch.release.setup import starting
from caffe2torch.release.trial import NEAR, Attempt, Findings
from caffe2torch.release.verify import Part, Result

WHY_WEIGHTS = "is the file the released one? `caffe2torch info` shows its layers; compare its size and where it is from"
UNRELATED = 0.25
"""Codes with a larger share of differing bits have nothing to do with each other; for fair bits it is one half."""
UNREAD_HINT = "the papers' scripts swallow every read error and go on with zeros: their file list or folder was wrong"


def text(result: Result, *, exact: bool = False) -> str:
    """The report: what was verified, a verdict for each figure, the cause of a difference, the sum of it."""
    lines = [*_head(result), "", *_codes(result), *_figures(result)]
    causes = list(_causes(result))
    lines += ["", *causes] if causes else []
    return "\n".join([*lines, "", _sum(result, exact=exact)])


def _head(result: Result) -> Iterator[str]:
    job = result.job
    yield f"release     {job.release.model}"
    yield f"weights     {job.model.weights}"
    yield f"pictures    {job.pictures.place}"
    setup = starting(job.model, job.pictures.own, precision=job.precision)
    yield f"            {setup.words('mirror')}"
    yield f"            {setup.words('jpeg')}"
    yield f"prepared    {setup.words('resize')}"
    for topic in ("mean", "crop", "scale", "channels"):
        yield f"            {setup.words(topic)}"
    yield f"hashed      on {result.device} in {job.precision}; codes kept in {job.out}"


def _codes(result: Result) -> Iterator[str]:
    for part in result.parts:
        resumed = f" ({part.done_before:,} of them were there)" if part.done_before else ""
        yield f"codes of {part.pictures:,} {part.name} images{resumed}: {_verdict(part)}"
        if part.difference is not None and part.difference.count:
            yield "    such as " + ", ".join(part.first)
        for name, bits in part.others:
            if part.difference is not None and bits < part.difference.count / 2:
                yield f"    nearer, with {bits:,} bits that differ, is {name}"
    if result.job.release.caution and (result.codes_differ or not result.job.codes):
        yield f"    note: {result.job.release.caution}"


def _verdict(part: Part) -> str:
    difference = part.difference
    if difference is None:
        return "no released codes to compare with"
    if not difference.count:
        return f"agree, all {difference.total:,} bits"
    count = f"{difference.count:,} of {difference.total:,} bits ({100 * difference.count / difference.total:.3g} %)"
    where = f"{count} in {len(difference.rows):,} of {difference.pictures:,} images"
    if part.rounding:
        return f"agree but for rounding: {where}; all within {part.farthest:.1e} of the threshold"
    return f"DIFFER by {where}"


def _figures(result: Result) -> Iterator[str]:
    for figure in result.figures:
        if figure.agrees:
            verdict = "agrees"
        elif result.excused(figure):
            verdict = f"agrees but for rounding, {figure.difference:+.1e}"
        else:
            verdict = f"DIFFERS by {figure.difference:+.6f}"
        note = f" ({figure.note})" if figure.note else ""
        yield f"{figure.name}: {figure.ours:.10f}, published {figure.published} - {verdict}  [{figure.source}]{note}"
    if result.no_figures:
        yield f"figures: not compared, {result.no_figures}"


def _causes(result: Result) -> Iterator[str]:
    for part in result.parts:
        yield from _seen_in_codes(part)
    if result.findings is not None:
        yield from _found(result, result.findings)
    elif result.codes_differ and not any(part.mix_up for part in result.parts):
        yield "no cause was looked for (--trial 0); the usual ones:"
        yield from _usual()
    low = [figure for figure in result.figures if figure.ours < 0.2]
    if low:
        yield f"{low[0].name} of {low[0].ours:.2f} is chance: the codes say nothing of the pictures (mean or weights)"


def _seen_in_codes(part: Part) -> Iterator[str]:
    difference = part.difference
    if difference is None or part.status != "differs":
        return
    if part.mix_up is not None:
        left = f"all bits but {part.mix_up.left:,} agree" if part.mix_up.left else "all bits agree"
        yield f"{part.name}: {part.mix_up.text}; with that undone {left}"
    wrong = len(difference.rows)
    some = ""
    if part.unread > max(1, wrong // 50):
        some = f"{part.unread:,} of the {wrong:,} images that differ have the code of an input of zeros"
    elif wrong >= 20 and part.constant > wrong // 2:
        some = f"{part.constant:,} of the {wrong:,} images that differ have one and the same released code"
    if some:
        yield f"{part.name}: {some}: {UNREAD_HINT}"


def _found(result: Result, findings: Findings) -> Iterator[str]:
    before = findings.before
    yield (
        f"looking for the cause: {before.pictures} images hashed again under {findings.tried} changes, one at a time; "
        f"as this run was told, {_count(before)} of them differ"
    )
    if not before.wrong:
        yield f"Hashed again they agree: remove {result.job.out}, whose codes were made otherwise, and run once more."
        return
    base = before.variation.setup
    for number, step in enumerate(findings.steps):
        said = "CAUSE" if number == 0 else "AND"
        outcome = "all bits agree" if not step.wrong else f"{_count(step)} differ"
        if step.wrong and step.agrees:
            outcome += f", all within {NEAR:g} of the threshold (rounding)"
        yield f"{said}: {step.variation.topic}. With {step.variation.text}, {outcome}."
        who = step.variation.who
        told = ", which is not what the zoo knows of the model" if who == ZOO else ""
        yield f"    this run had: {base.words(step.variation.topic)}{told}"
        if who and who != ZOO:
            yield f"    usual with: {who}"
        yield f"    {WHY[step.variation.topic]}"
    if findings.equal:
        same = "; ".join(attempt.variation.text for attempt in findings.equal[:3])
        yield f"    on these images it cannot be told from: {same}"
    if not findings.agrees:
        yield from _unexplained(findings)
    if findings.failed:
        yield f"not tried: {'; '.join(list(dict.fromkeys(findings.failed))[:3])}"


def _unexplained(findings: Findings) -> Iterator[str]:
    if findings.steps:
        yield "This does not explain everything."
    else:
        yield "None of the changes makes the codes agree."
    if _unrelated(findings):
        yield "As many bits differ as between codes of different weights: these are hardly the released ones."
        yield f"    {WHY_WEIGHTS}"
        return
    if findings.runners_up:
        yield "Next best: " + "; ".join(f"{a.variation.text} ({_count(a)})" for a in findings.runners_up)
    yield "What remains:"
    yield from _usual()


def _unrelated(findings: Findings) -> bool:
    """Whether the codes have nothing to do with each other, whatever is changed."""
    return (findings.steps[-1] if findings.steps else findings.before).share > UNRELATED


def _count(attempt: Attempt) -> str:
    return f"{attempt.wrong:,} of {attempt.total:,} bits"


def _usual() -> Iterator[str]:
    yield f"    weights: {WHY_WEIGHTS}"
    yield "    pictures: made by tools/make_cifar10.py, or others of the same names?"
    for topic in ("mean", "crop", "resize", "channels"):
        yield f"    {topic}: {WHY[topic]}"


def _sum(result: Result, *, exact: bool) -> str:
    if result.agrees(exact=exact):
        compared = [part for part in result.parts if part.difference is not None]
        if not compared and not result.figures:
            return "nothing was compared: neither codes nor figures are at hand"
        return "verified: " + (
            "everything agrees" if not result.only_rounding else "everything agrees but for rounding at the threshold"
        )
    findings = result.findings
    if findings is not None and findings.agrees:
        named = ", then ".join(f"{step.variation.topic} ({step.variation.text})" for step in findings.steps)
        return f"NOT verified; the cause: {named}"
    mixed = next((part.mix_up for part in result.parts if part.mix_up is not None), None)
    return f"NOT verified; the cause: {mixed.text}" if mixed else "NOT verified"


def to_dict(result: Result, *, exact: bool = False) -> dict[str, Any]:
    """Plain values for JSON."""
    job = result.job
    return {
        "model": job.release.model,
        "weights": str(job.model.weights),
        "pictures": job.pictures.place,
        "form": vars(job.pictures.own),
        "preprocessing": job.model.spec.to_dict(),
        "mean": str(job.model.mean) if job.model.mean else None,
        "device": result.device,
        "precision": job.precision,
        "agrees": result.agrees(exact=exact),
        "codes": [_part_dict(part, job.codes.get(part.name)) for part in result.parts],
        "figures": [_figure_dict(result, figure) for figure in result.figures],
        "no_figures": result.no_figures or None,
        "cause": _findings_dict(result.findings) if result.findings else None,
    }


def _part_dict(part: Part, reference: str | None) -> dict[str, Any]:
    difference = part.difference
    found: dict[str, Any] = {"part": part.name, "images": part.pictures, "bits": part.bits, "verdict": part.status}
    if difference is None:
        return found
    return {
        **found,
        "reference": reference,
        "bits_compared": difference.total,
        "bits_different": difference.count,
        "images_different": len(difference.rows),
        "first": list(part.first),
        "mix_up": {"text": part.mix_up.text, "bits_left": part.mix_up.left} if part.mix_up else None,
        "released_as_zeros": part.unread,
        "others": dict(part.others),
    }


def _figure_dict(result: Result, figure: Measured) -> dict[str, Any]:
    return {**vars(figure), "verdict": "agrees" if result.excused(figure) else "differs"}


def _findings_dict(findings: Findings) -> dict[str, Any]:
    return {
        "agrees": findings.agrees,
        "images": findings.before.pictures,
        "as_run": _attempt_dict(findings.before),
        "steps": [_attempt_dict(attempt) for attempt in findings.steps],
        "equal": [_attempt_dict(attempt) for attempt in findings.equal],
        "tried": findings.tried,
        "unrelated": _unrelated(findings),
    }


def _attempt_dict(attempt: Attempt) -> dict[str, Any]:
    return {
        "topic": attempt.variation.topic,
        "text": attempt.variation.text,
        "bits_different": attempt.wrong,
        "bits_at_threshold": attempt.near,
        "bits_compared": attempt.total,
    }
