"""What is personal in an event, and how it is cut out before anything is stored or logged."""

from __future__ import annotations

import re
from typing import Any

from crm.domain.errors import EventRefused

Cut = tuple[tuple[str, str], ...]

MAX_DEPTH = 32
PERSONAL_NAMES = frozenset(
    {
        "email", "emailaddress", "mail",
        "phone", "phonenumber", "mobile", "mobilenumber", "msisdn", "telephone", "whatsapp",
        "name", "fullname", "firstname", "lastname", "middlename", "surname", "givenname",
        "familyname", "maidenname",
        "address", "street", "addressline1", "addressline2", "postcode", "postalcode", "zipcode", "zip",
        "dateofbirth", "birthdate", "birthday", "dob",
        "document", "documentnumber", "documentid", "passport", "passportnumber", "nationalid",
        "idnumber", "idcard", "taxid", "taxnumber", "ssn", "cpf", "rg", "cnh", "nif", "dni", "curp",
        "iban", "accountnumber", "bankaccount", "pixkey",
        "ip", "ipaddress", "clientip", "useragent", "deviceid", "username", "nickname",
    }
)  # fmt: skip
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_PHONE = re.compile(r"(?<![\w+])(?:\+|00)[1-9](?:[ ().-]?\d){7,14}(?!\w)")
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,18}\d(?!\d)")
# Issuer ranges of ISO/IEC 7812 with their lengths: Luhn alone would refuse a tenth of all long ids.
_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}|35\d{14}|(?:50|5[6-8]|6\d)\d{10,17}|62\d{14,17}"
)


def looks_personal(text: str) -> bool:
    """Whether `text` holds an e-mail address or an international phone number."""
    return ("@" in text and bool(_EMAIL.search(text))) or bool(_PHONE.search(text))


def cut_personal_fields(properties: dict[str, Any]) -> tuple[dict[str, Any], Cut]:
    """Split `properties` into what may be stored and what is personal, by dotted path.

    A field is personal by its name, or because its value looks like an e-mail address or a phone
    number. Raises EventRefused(card_number) where a payment card's number stands.
    """
    cut: list[tuple[str, str]] = []
    kept = _without(properties, "", cut, 0)
    return kept, tuple(cut)


def _without(value: Any, path: str, cut: list[tuple[str, str]], depth: int) -> Any:  # noqa: ANN401
    """Return `value` without its personal parts, which go to `cut`."""
    if isinstance(value, str):
        return value if len(value) < 6 else _checked_text(value, path, cut)  # noqa: PLR2004
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if isinstance(value, int):
        _refuse_card(str(value), path)
        return value
    if depth >= MAX_DEPTH:
        raise EventRefused("invalid_field", f"nested over {MAX_DEPTH} deep", "properties")
    if isinstance(value, list):
        return [_without(item, f"{path}.{i}", cut, depth + 1) for i, item in enumerate(value)]
    kept: dict[str, Any] = {}
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if _is_personal_name(name):
            cut.extend(_leaves(item, where))
            continue
        if looks_personal(name) or _CARD.search(name):
            raise EventRefused("invalid_field", "a property's name holds personal data", "properties")
        kept[name] = _without(item, where, cut, depth + 1)
        if kept[name] is _GONE:
            del kept[name]
    return kept


_GONE = object()


def _checked_text(value: str, path: str, cut: list[tuple[str, str]]) -> Any:  # noqa: ANN401
    if looks_personal(value):
        cut.append((path, value))
        return _GONE
    _refuse_card(value, path)
    return value


def _is_personal_name(name: str) -> bool:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "") in PERSONAL_NAMES


def _leaves(value: Any, path: str) -> list[tuple[str, str]]:  # noqa: ANN401
    """Return every scalar below `value` with its path; card numbers are refused here too."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [leaf for i, v in enumerate(value) for leaf in _leaves(v, f"{path}.{i}")]
    if value is None:
        return []
    text = str(value)
    _refuse_card(text, path)
    return [(path, text)]


def _refuse_card(text: str, path: str) -> None:
    if path.endswith("_id"):  # an operator's own long ids are not cards
        return
    for found in _CARD.findall(text):
        digits = re.sub(r"\D", "", found)
        if _ISSUER.fullmatch(digits) and _luhn(digits):
            raise EventRefused("card_number", "payment card numbers are never taken in", f"properties.{path}")


def _luhn(digits: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004
    return total % 10 == 0
