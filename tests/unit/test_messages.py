"""dsmc's messages: which codes are known, how they are found, and which of them are errors."""

import pytest

from worker.dsmc import messages
from worker.words import FailureClass

# A copy of dsmc-facts.md section 4: every code it marks T or T* (another try may work) ...
TRANSIENT = """
    ANS1017E ANS1809W ANS1811S ANS1005E ANS1029E ANS1026E ANS8023E
    ANS1351E ANS1355E ANS1359E ANS1363S ANS1364S ANS1365S ANS1366E
    ANS1301E ANS1309W ANS1311E ANS1312E ANS1313E ANS1314E ANS1315W ANS1316E ANS1317E ANS1318E
    ANS1329S ANS0326E ANS0278S ANS0349E ANS1030E ANS1225E
    ANS1424W ANS1258E ANS1259E ANS1327W ANS5258E ANS5261W ANS5268W ANS5271E ANS5273E ANS4987E ANS4037E
    ANS1588W ANS8010E
"""

# ... every code it marks P (needs a person) ...
PERMANENT = """
    ANS1000E ANS1033E ANS1352E ANS1353E ANS1354E ANS1356E ANS1357S ANS1358S ANS1361E ANS1362S ANS1367E
    ANS1369E ANS1371E ANS1375E ANS1051I ANS1025E ANS2050E ANS1217E ANS1035S ANS1592E ANS1593E ANS1695E ANS1532E
    ANS1310E ANS1320E ANS1330S ANS0348E ANS1028S
    ANS1063E ANS1229E ANS4000E ANS1071E ANS1072E ANS1076E ANS1149E ANS1113E ANS1737E ANS4005E ANS4007E ANS1403E
    ANS1252W ANS1184W
    ANS1107E ANS1108E ANS1036S ANS1038S ANS1082E ANS1102E ANS1133W ANS1138E ANS1115W ANS1375W ANS6718E
    ANS0101E ANS0103E ANS0104E ANS0105E ANS0106E ANS0107E ANS0108E ANS0109E ANS0113E ANS0119E ANS0110E ANS0118E
    ANS0120E ANS1398E
"""

# ... and every code in it that decides nothing, with the reason.
SILENT: dict[str, str] = {
    # summaries: the code before them counts
    "ANS1813E": "summary",
    "ANS1425E": "summary",
    "ANS1228E": "summary",
    "ANS5283E": "summary",
    "ANS1802E": "summary",
    "ANS1999E": "summary",
    "ANS1512E": "summary",
    # the backup is complete, or the message only informs
    "ANS1810E": "informs, though E: the session is back",
    "ANS1144W": "OK",
    "ANS0990W": "OK",
    "ANS1453W": "OK",
    "ANS9296W": "OK",
    "ANS1278W": "OK",
    "ANS1587W": "OK",
    "ANS1740W": "OK",
    "ANS1741W": "OK",
    "ANS1590W": "OK",
    "ANS1696W": "OK",
    "ANS2036W": "OK",
    "ANS2225W": "OK",
    "ANS1832W": "P for the configuration, but the backup is OK",
    "ANS1376E": "a warning of its kind: no snapshot, the image is made",
    "ANS1377W": "a warning: no snapshot, the image is made",
    "ANS0102W": "the repository in English is used instead",
    "ANS0121W": "a warning: a name is shown wrongly",
    "ANS1114I": "waits; counts against the time limit",
    "ANS1148I": "informs",
    "ANS1247I": "informs",
    "ANS1898I": "informs",
    "ANS0361I": "informs",
    "ANS1946W": "of restores",
    "ANS1947W": "of restores",
    # neutral, or not a fault
    "ANS1302E": "neutral",
    "ANS1092W": "neutral",
    "ANS1345E": "neutral",
    "ANS2820E": "somebody interrupted it: the end of the run says so",
    "ANS5250E": "the lines after it say what happened",
}


@pytest.mark.parametrize("code", TRANSIENT.split())
def test_a_code_that_another_try_may_cure_is_transient(code: str) -> None:
    assert messages.CLASSES[code] is FailureClass.TRANSIENT


@pytest.mark.parametrize("code", PERMANENT.split())
def test_a_code_that_needs_a_person_is_permanent(code: str) -> None:
    assert messages.CLASSES[code] is FailureClass.PERMANENT


@pytest.mark.parametrize("code", SILENT)
def test_a_code_that_decides_nothing_has_no_class(code: str) -> None:
    assert code not in messages.CLASSES


def test_the_table_has_no_code_without_a_source() -> None:
    assert set(messages.CLASSES) == {*TRANSIENT.split(), *PERMANENT.split()}


def test_no_code_is_of_two_kinds() -> None:
    listed = [*TRANSIENT.split(), *PERMANENT.split(), *SILENT]
    assert sorted(listed) == sorted(set(listed))


FOUND: list[tuple[bytes, list[bytes]]] = [
    (b"ANS1312E Server media mount not possible", [b"ANS1312E"]),
    (b"ANS1312E", [b"ANS1312E"]),
    (b"  ANS1312E indented", [b"ANS1312E"]),
    (b"\tANS1312E after a tab", [b"ANS1312E"]),
    (b"07/26/2004 13:56:02 ANS1312E as in dsmerror.log", [b"ANS1312E"]),
    (b"ANS1228E failed ANS1312E mount", [b"ANS1228E", b"ANS1312E"]),
    (b"ANS1353E (RC53) Session rejected", [b"ANS1353E"]),
    (b"ANS1051I: Invalid user id", [b"ANS1051I"]),
    (b"ANS1035S severe ANS0990W warning", [b"ANS1035S", b"ANS0990W"]),
    # localised: the code is the same, and no byte of the text matters
    ("ANS1353E (RC53) Sesión rechazada: Se ha entrado un ID desconocido".encode(), [b"ANS1353E"]),
    ("ANS1312E Es ist nicht möglich, Datenträger anzuhängen".encode("latin-1"), [b"ANS1312E"]),
    # inside paths and words
    (b"Normal File--> 1 /srv/ANS1312E [Sent]", []),
    (b"Normal File--> 1 /srv/ANS1312E.txt [Sent]", []),
    (b"Normal File--> 1 C:\\logs\\ANS1312E.log [Sent]", []),
    (b"ANS1228E Sending of object '/srv/ANS1353E' failed", [b"ANS1228E"]),
    (b"ANS1228E Sending of object 'ANS1353E' failed", [b"ANS1228E"]),
    (b"XANS1312E", []),
    (b"ANS1312EX", []),
    (b"ANS1312E2", []),
    # not codes
    (b"ANS1312", []),
    (b"ANS131E", []),
    (b"ANS13122E", []),
    (b"ANS1312K", []),
    (b"ans1312e", []),
    (b"ANR0480W of the server", []),
    (b"ANE4952I of the server", []),
    ("ANS\N{ARABIC-INDIC DIGIT ONE}312E".encode(), []),
]


@pytest.mark.parametrize(("line", "codes"), FOUND)
def test_codes_are_found_and_nothing_else(line: bytes, codes: list[bytes]) -> None:
    assert messages.CODE.findall(line) == codes


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ANS1312E", True),
        ("ANS1035S", True),
        ("ANS1051I", True),
        ("ANS1809W", False),
        ("ANS1898I", False),
        ("ANS1375E", True),
        ("ANS1375W", False),
    ],
)
def test_the_letter_says_whether_a_code_is_an_error_but_for_the_wrong_password(
    code: str, *, error: bool
) -> None:
    assert messages.is_error(code) is error
