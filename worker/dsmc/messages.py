"""dsmc's messages (`ANSnnnnX text`): which of them say whether another try may work.

One row a code, from dsmc-facts.md section 4 (IBM's message books and public reports; what was unverified
there is unverified here, so `[retry.classes]` of the configuration overrides any row). Codes alone are
matched, never words: the texts are localised. Codes that only sum up (ANS1813E, ANS1425E, ANS1228E, ANS5283E,
ANS1802E, ANS1999E, ANS1512E) or only inform carry no class and so no row.
"""

import re

from worker.words import FailureClass

# A code stands at the start of a line or after white space, so that a path that contains one is not one.
CODE = re.compile(rb"(?<!\S)(ANS[0-9]{4}[IWES])(?![A-Za-z0-9])")

_TRANSIENT = """
    ANS1017E ANS1809W ANS1811S ANS1005E ANS1029E ANS1026E ANS8023E ANS1351E ANS1355E ANS1359E ANS1363S ANS1364S
    ANS1365S ANS1366E
    ANS1301E ANS1309W ANS1311E ANS1312E ANS1313E ANS1314E ANS1315W ANS1316E ANS1317E ANS1318E ANS1329S ANS0326E
    ANS0278S ANS0349E ANS1030E ANS1225E
    ANS1424W ANS1258E ANS1259E ANS1327W ANS5258E ANS5261W ANS5268W ANS5271E ANS5273E ANS4987E ANS4037E
    ANS1588W ANS8010E
"""

_PERMANENT = """
    ANS1000E ANS1033E ANS1352E ANS1353E ANS1354E ANS1356E ANS1357S ANS1358S ANS1361E ANS1362S ANS1367E ANS1369E
    ANS1371E ANS1375E ANS1051I ANS1025E ANS2050E ANS1217E ANS1035S ANS1592E ANS1593E ANS1695E ANS1532E
    ANS1310E ANS1320E ANS1330S ANS0348E ANS1028S
    ANS1063E ANS1229E ANS4000E ANS1071E ANS1072E ANS1076E ANS1149E ANS1113E ANS1737E ANS4005E ANS4007E ANS1403E
    ANS1252W ANS1184W
    ANS1107E ANS1108E ANS1036S ANS1038S ANS1082E ANS1102E ANS1133W ANS1138E ANS1115W ANS1375W ANS6718E
    ANS0101E ANS0103E ANS0104E ANS0105E ANS0106E ANS0107E ANS0108E ANS0109E ANS0113E ANS0119E ANS0110E ANS0118E
    ANS0120E ANS1398E
"""

CLASSES: dict[str, FailureClass] = {
    **dict.fromkeys(_TRANSIENT.split(), FailureClass.TRANSIENT),
    **dict.fromkeys(_PERMANENT.split(), FailureClass.PERMANENT),
}

# An I message that is the error: the wrong password, after which dsmc only asks for another.
_ERRORS_BY_ANOTHER_LETTER = frozenset({"ANS1051I"})


def is_error(code: str) -> bool:
    """Whether the code's severity makes it a cause of exit 12: E, S, or an I that IBM means as one."""
    return code[-1] in "ES" or code in _ERRORS_BY_ANOTHER_LETTER
