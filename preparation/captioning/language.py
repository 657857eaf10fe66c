"""Words of a text, and whether it is English: by its script, and by the small words that no sentence does without."""

import re
import unicodedata

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+(?:\.\d+)?")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
ENGLISH = frozenset(
    re.findall(
        r"\w+",
        """the a an and or but of to in on at is are was were be been being with his her hers its he she it they their
        them him this that these those there then than while as by for from into onto up down out off over under again
        also who which whose has have had does do did not no so some one two all both each other another before
        after through around very more most just only still along across behind near toward towards between what
        someone somebody something""",
    )
)
"""They carry no meaning of their own."""
OTHERS = {
    "Spanish": "a el la los las un una unos y de del en con que se su sus por para al es está son lo como mientras",
    "French": "le la les un une et de des du dans en avec qui se sa son ses sur est au aux il elle pour par",
    "German": "der die das ein eine einen einem einer und ist mit auf im den dem des zu er sie während von aus sich",
    "Italian": "a il lo la i gli le un una e di del della dei in con che si su sua suo per è mentre nel nella al alla",
    "Portuguese": "a o os as um uma e de do da dos das em na no com que se seu sua por para é enquanto ao está são",
    "Dutch": "de het een en van in op met die zijn haar terwijl is naar aan uit voor deze wordt",
    "Hungarian": "a az egy és hogy nem van egyik fel le meg",
    "Polish": "i w z na do się jest przez po od ze który która ich jego jej oraz podczas",
    "Indonesian": "yang dan di ke dari dengan untuk pada ini itu sedang seorang sebuah dalam",
    "Vietnamese": "một người và của là trong đang với cho những các",
    "Turkish": "bir ve bu ile için de da olan çok adam kadın",
    "Swedish": "en och ett att det som på är med av till den han hon i",
}
FOREIGN = [frozenset(text.split()) for text in OTHERS.values()]
SMALL_WORDS_FROM = 4
"""A text of so many words has a small one among them."""
MARKED_SHARE = 0.25
"""Of the words of an English text, fewer have letters beyond a to z."""
ENDINGS = ("ing", "ed", "es", "s", "ly")


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return WORD.findall(text.replace("’", "'").lower())


def content_words(text: str) -> list[str]:
    """The stems of the words that carry meaning, in their order: ``opens`` and ``opening`` are one."""
    bare = (word.removesuffix("'s") for word in words(text))
    return [_stem(word) for word in bare if word not in ENGLISH]


def _stem(word: str) -> str:
    ending = next((end for end in ENDINGS if word.endswith(end) and len(word) - len(end) >= 3), "")
    word = word.removesuffix(ending)
    return (word[:-1] if len(word) > 3 and word[-1] == word[-2] else word).removesuffix("e")  # running, closes


def is_foreign(text: str) -> bool:
    """Whether a text, or a sentence of it, is in another language than English."""
    if any(letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN") for letter in text):
        return True
    found = [word for word in words(text) if not word[0].isdigit()]
    if len(found) >= SMALL_WORDS_FROM and not ENGLISH.intersection(found):
        return True
    marked = sum(not word.isascii() for word in found)
    if marked > MARKED_SHARE * len(found) and marked > sum(word in ENGLISH for word in found):
        return True
    return any(map(_is_foreign_sentence, SENTENCE.split(text)))


def _is_foreign_sentence(text: str) -> bool:
    found = words(text)
    english = sum(word in ENGLISH for word in found)
    return any(len(small.intersection(found)) >= 2 and sum(w in small for w in found) > english for small in FOREIGN)
