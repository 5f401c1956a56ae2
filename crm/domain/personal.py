"""What is personal in an event, and how it is cut out before anything is stored or logged."""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from decimal import Decimal
from functools import lru_cache
from html import unescape
from math import isfinite
from typing import Any, Final, Literal, NoReturn
from urllib.parse import unquote

import msgspec
import numpy as np

from crm.domain.errors import EventRefused

Cut = tuple[tuple[str, str], ...]

MAX_DEPTH = 32
MAX_PATH_BYTES = 256
PERSONAL_NAMES = frozenset(
    {
        "email", "emailaddress", "mail", "correio",
        "phone", "phonenumber", "mobile", "mobilenumber", "msisdn", "telephone", "whatsapp",
        "phonehome", "phonework", "phonemobile", "telefone", "telemovel", "celular",
        "name", "fullname", "firstname", "lastname", "middlename", "surname", "givenname",
        "familyname", "maidenname", "nome", "nomecompleto", "sobrenome", "apelido", "nombre",
        "apellido", "cardholder", "accountholder",
        "address", "street", "addressline1", "addressline2", "postcode", "postalcode", "zipcode",
        "zip", "endereco", "cep", "dateofbirth", "datebirth", "birthdate", "birthday", "dob",
        "nascimento",
        "document", "documentnumber", "documentid", "passport", "passportnumber", "nationalid",
        "idnumber", "idcard", "taxid", "taxnumber", "ssn", "cpf", "rg", "cnh", "nif", "dni", "curp",
        "iban", "accountnumber", "bankaccount", "pixkey",
        "ip", "ipv4", "ipv6", "ipaddress", "clientip", "remoteaddr", "useragent", "deviceid",
        "username", "nickname",
    }
)  # fmt: skip
# `customer_name` is a person's, `game_name` is not: "name" alone needs one of these before it.
_PERSONS = frozenset(
    {
        "player", "user", "customer", "client", "person", "account", "holder", "owner", "payer",
        "cardholder", "accountholder",
        "payee", "beneficiary", "sender", "recipient", "contact", "billing", "shipping", "legal",
        "mother", "father", "member", "guest",
    }
)  # fmt: skip
_NAME_CHARS = 64  # a longer name is not worth remembering, and its end says what it is
# An id's digits are the operator's own number, but not under these words.
_PAYMENT = frozenset({"card", "cards", "pan", "cc", "payment", "payments"})

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ID_NAME = re.compile(r"(?:^|_)ids?$|[a-z0-9](?:I[dD]s?)$")
_SHOWABLE = re.compile(r"[A-Za-z0-9_.]{1,64}")

_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))

# One character before the @ is enough to find an address, and keeps the search linear.
_EMAIL = re.compile(r"[^\s@]@[^\s@.]+\.[^\s@]")
_SEPARATED_DIGITS = r"(?:[ ().\-/_\u2010-\u2015]{0,3}[0-9]){7,14}(?![0-9])"
_PHONE = re.compile(rf"\+[1-9]{_SEPARATED_DIGITS}")
_PHONE_BY_00 = re.compile(rf"(?<![\w+.,-])00[1-9]{_SEPARATED_DIGITS}")

_GAP = r"(?:[\s\-\u2010-\u2015]{1,8}|(?<=[0-9]{4})[.,/_](?=[0-9]{4}))"
_DIGIT_RUN = re.compile(rf"(?<![0-9])[0-9](?:{_GAP}?[0-9]){{12,}}")
_DIGITS = re.compile(r"[0-9]+")
_DIGEST = re.compile(
    r"\b(?:[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|(?:[0-9a-fA-F]{8}){4,8})\b"
)
CARD_DIGITS = range(13, 20)
# Issuer ranges of ISO/IEC 7812 with their lengths: Luhn alone would refuse a tenth of all long ids.
_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}|35\d{14}|(?:50|5[6-8]|6\d)\d{10,17}|62\d{14,17}"
)
_ISSUERS_BEGIN = (2, 3, 4, 5, 6)
_LUHN_DOUBLED = np.array((0, 2, 4, 6, 8, 1, 3, 5, 7, 9))
_ESCAPED_TIMES = 3


def looks_personal(text: str) -> bool:
    """Whether `text` holds an e-mail address or an international phone number that begins with +.

    Numbers that begin with 00 are not looked for: an operator's padded ids look the same.
    """
    text = _plain(text)
    return ("@" in text and bool(_EMAIL.search(text))) or (
        "+" in text and bool(_PHONE.search(text))
    )


def holds_card(text: str) -> bool:
    """Whether a payment card's number stands in `text`, in one piece or in groups."""
    plain = _plain(text)
    if not any(map(_has_card_in, _DIGIT_RUN.findall(plain))):
        return False
    # hexadecimal digests and UUIDs hold long digits by chance
    return any(map(_has_card_in, _DIGIT_RUN.findall(_DIGEST.sub(" ", plain))))


def unstorable(text: str) -> bool:
    """Whether PostgreSQL cannot hold `text`: it has a NUL, or half of a surrogate pair."""
    if text.isascii():
        return "\0" in text
    return "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)


def cut_personal_fields(properties: dict[str, Any]) -> tuple[dict[str, Any], Cut]:
    """Split `properties` into what may be stored and what is personal, by dotted path.

    A field is personal by its name, or because its value looks like an e-mail address or a phone
    number. Returns `properties` itself where nothing is. Raises EventRefused: card_number where a
    payment card's number stands, invalid_field for what JSON or the log cannot hold.
    """
    cut: list[tuple[str, str]] = []
    kept = _object(properties, "", cut, 0)
    return (kept if cut else properties), tuple(cut)


def nothing_to_cut(properties: dict[str, Any], encoded: bytes) -> bool:
    """Whether a glance at `properties` and at their JSON shows that nothing can be personal.

    It costs a tenth of `cut_personal_fields` and spares most events that; False means: look closer.
    Raises EventRefused for a bad name.
    """
    return (
        len(encoded) <= GLANCE_BYTES
        and _FLAT.issuperset(map(type, properties.values()))
        and encoded.isascii()
        and b"@" not in encoded
        and b"+" not in encoded
        and b"%" not in encoded
        and b"&" not in encoded
        and b"\\" not in encoded  # an escape
        and b"null" not in encoded  # what JSON makes of NaN
        and len(encoded) - len(encoded.translate(None, b"0123456789")) < LEAST_DIGITS
        and _all_plain(tuple(properties))
    )


@lru_cache(maxsize=1024)
def _all_plain(names: tuple[str, ...]) -> bool:
    """Remembered for each shape of properties: there are few, and events are many."""
    return all(_kind(name) != "personal" for name in names)


GLANCE_BYTES = 2048
_FLAT = frozenset({str, int, float, bool, type(None)})
LEAST_DIGITS = 10  # of a phone number after 00; a card has more
_GONE: Final = object()


def _object(value: dict[Any, Any], path: str, cut: list[tuple[str, str]], depth: int) -> Any:
    kept: dict[str, Any] = {}
    for name, item in value.items():
        kind = _kind(name)
        if kind == "personal" and not isinstance(item, bool):
            _cut_whole(item, _below(path, name), cut, depth + 1)
            continue
        if type(item) is str and len(item) < 9 and item.isascii() and item.isalnum():  # noqa: PLR2004 - below
            kept[name] = item  # too short for a phone number or a card, and no @ in it
            continue
        stays = _value(item, _below(path, name), cut, depth + 1, is_id=kind == "id")
        if stays is not _GONE:
            kept[name] = stays
    return kept


def _value(value: Any, path: str, cut: list[tuple[str, str]], depth: int, *, is_id: bool) -> Any:
    """Return `value` without its personal parts, which go to `cut`, or _GONE."""
    if isinstance(value, dict | list | tuple):
        if depth >= MAX_DEPTH:
            raise EventRefused("invalid_field", f"nested over {MAX_DEPTH} deep", "properties")
        if isinstance(value, dict):
            return _object(value, path, cut, depth)
        items = (
            _value(item, f"{path}.{i}", cut, depth + 1, is_id=is_id) for i, item in enumerate(value)
        )
        return [item for item in items if item is not _GONE]
    if value is None or isinstance(value, bool):
        return value
    text = _scalar(value, path)
    if _is_personal_text(text, is_id=is_id):
        _keep_apart(text, path, cut)
        return _GONE
    _refuse_card(text, path, is_id=is_id)
    return value


def _cut_whole(value: Any, path: str, cut: list[tuple[str, str]], depth: int) -> None:
    """Cut all that stands below a personal name, as one: the names in it may be personal too."""
    _check_all(value, path, depth)
    if isinstance(value, dict | list | tuple):
        _keep_apart(msgspec.json.encode(value).decode(), path, cut)
    elif value is not None:
        _keep_apart(_scalar(value, path), path, cut)


def _check_all(value: Any, path: str, depth: int) -> None:
    """Refuse cards, bad names and what JSON cannot hold, at any depth."""
    if depth > MAX_DEPTH:
        raise EventRefused("invalid_field", f"nested over {MAX_DEPTH} deep", "properties")
    if isinstance(value, dict):
        for name, item in value.items():
            _kind(name)
            _check_all(item, path, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_all(item, path, depth + 1)
    elif value is not None:
        _refuse_card(_scalar(value, path), path, is_id=False)


def _keep_apart(text: str, path: str, cut: list[tuple[str, str]]) -> None:
    """Add a personal value to what is cut out; its path is a key in the store, so it is short."""
    if len(path.encode()) > MAX_PATH_BYTES:
        _refuse(f"the names above a personal value exceed {MAX_PATH_BYTES} bytes", "")
    cut.append((path, text))


def _scalar(value: Any, path: str) -> str:  # noqa: PLR0911  # one return a type
    """Return the text of a JSON scalar, or of a time or decimal that an import put there."""
    if isinstance(value, str):
        if unstorable(value):
            _refuse("properties hold a NUL character or half a surrogate pair", path)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            _refuse("a number in properties has over 64 bits", path)
        return str(value)
    if isinstance(value, float):
        if not isfinite(value):
            _refuse("a number in properties is not finite", path)
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, date):  # a datetime is a date too
        return value.isoformat()
    return _refuse("properties hold what JSON cannot", path)


def _is_personal_text(text: str, *, is_id: bool) -> bool:
    if "@" not in text and len(text) < 9:  # noqa: PLR2004  # a phone number is a + and 8 digits
        return False
    return looks_personal(text) or (not is_id and "00" in text and bool(_PHONE_BY_00.search(text)))


def _refuse_card(text: str, path: str, *, is_id: bool) -> None:
    if len(text) < CARD_DIGITS.start or (is_id and text.isdigit()):  # an operator's own long id
        return
    if holds_card(text):
        raise EventRefused("card_number", "payment card numbers are never taken in", _shown(path))


def _refuse(message: str, path: str) -> NoReturn:
    raise EventRefused("invalid_field", message, _shown(path))


def _shown(path: str) -> str:
    """Return the field as an error may name it: not where its name could be anything."""
    return f"properties.{path}" if _SHOWABLE.fullmatch(path) else "properties"


def _below(path: str, name: str) -> str:
    name = name.replace(".", "\\.") if "." in name else name
    return f"{path}.{name}" if path else name


Kind = Literal["plain", "personal", "id"]


def _kind(name: Any) -> Kind:
    """Say what a property's name tells about its value; raises EventRefused for a bad name."""
    if not isinstance(name, str):
        raise EventRefused("invalid_field", "a property's name is not text", "properties")
    return _kind_of_word(name) if len(name) <= _NAME_CHARS else _judged(name)


@lru_cache(maxsize=4096)
def _kind_of_word(name: str) -> Kind:
    return _judged(name)


def _judged(name: str) -> Kind:
    if unstorable(name):
        _refuse("properties hold a NUL character or half a surrogate pair", "")
    if holds_card(name):
        raise EventRefused("card_number", "payment card numbers are never taken in", "properties")
    if looks_personal(name):
        _refuse("a property's name holds personal data", "")
    if _is_personal_name(name):
        return "personal"
    if _ID_NAME.search(name) and _PAYMENT.isdisjoint(map(str.lower, _WORD.findall(name))):
        return "id"
    return "plain"


def _is_personal_name(name: str) -> bool:
    """Whether a name, or how it ends, is a personal one: email, userEmail, billing_address_2."""
    name = name[-_NAME_CHARS:]
    whole = re.sub(r"[\s_.\-]", "", name).lower()
    if whole in PERSONAL_NAMES or whole.removesuffix("s") in PERSONAL_NAMES:
        return True
    words = [word.lower() for word in _WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if words and words[-1] not in PERSONAL_NAMES:  # address is no plural
        words[-1] = words[-1].removesuffix("es" if words[-1] == "addresses" else "s")
    for start in range(len(words)):
        ending = "".join(words[start:])
        if ending == "name":
            return start == 0 or words[start - 1] in _PERSONS
        if ending in PERSONAL_NAMES:
            return True
    return False


def _plain(text: str) -> str:
    """Return `text` without what hides what it holds: other digits and forms, escapes."""
    for _ in range(_ESCAPED_TIMES):
        if "%" not in text and "&" not in text:
            break
        text = unescape(unquote(text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
        text = "".join(_ascii_digit(char) for char in text)
    return text


def _ascii_digit(char: str) -> str:
    return str(unicodedata.digit(char)) if char.isdigit() and not char.isascii() else char


def _has_card_in(run: str) -> bool:
    """Whether neighbouring groups of digits make up a card's number; in linear time.

    `sums[p][i]` is the checksum (Luhn, ISO/IEC 7812-1 annex B) of the first i digits of a number
    that ends at an index of parity p, so that every window's is a difference.
    """
    groups = _DIGITS.findall(run)
    if len(groups) == 1:
        return len(run) in CARD_DIGITS and bool(_ISSUER.fullmatch(run)) and _luhn(run)
    digits = np.frombuffer("".join(groups).encode(), np.uint8).astype(np.int64) - ord("0")
    doubled, index = _LUHN_DOUBLED[digits], np.arange(len(digits))
    sums = [
        np.concatenate(([0], np.cumsum(np.where(index % 2 == parity, digits, doubled))))
        for parity in (0, 1)
    ]
    ends = np.cumsum([len(group) for group in groups])
    starts = np.concatenate(([0], ends[:-1]))
    starts = starts[np.isin(digits[starts], _ISSUERS_BEGIN)]
    is_end = np.zeros(len(digits) + CARD_DIGITS.stop, dtype=bool)
    is_end[ends] = True
    for length in CARD_DIGITS:
        start = starts[is_end[starts + length]]
        parity = (start + length - 1) % 2
        total = np.where(
            parity == 0,
            sums[0][start + length] - sums[0][start],
            sums[1][start + length] - sums[1][start],
        )
        for first in start[total % 10 == 0].tolist():
            number = "".join(map(str, digits[first : first + length].tolist()))
            if _ISSUER.fullmatch(number):
                return True
    return False


def _luhn(digits: str) -> bool:
    plain = sum(map(int, digits[-1::-2]))
    return (plain + sum(int(_LUHN_DOUBLED[int(digit)]) for digit in digits[-2::-2])) % 10 == 0
