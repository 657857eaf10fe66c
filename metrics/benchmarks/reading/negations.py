"""Answers without a time: does it not happen, or does the model not say?"""

import re

LONGEST = 2000
"""Characters at either end of an answer that are looked at."""
THING = (
    r"(?:event|moment|action|scene|query|activity|it|this|that|they|instance|segment|part|occurrence|described\w*|"
    r"question)"
)
BE = r"(?:does|do|did|is|was|are|were|has|have|can|could)"
SHOWN = (
    r"(?:happen|occur|take|appear|exist|present|shown?|visible|seen|depict|found|featured?|included?|contain|in the|"
    r"there|"
    r"observed|portray|been|match|part of)"
)
NEVER = (
    rf"\b{THING}\b[^.\n]{{0,60}}?\b(?:{BE}(?: not|n't)|never)\b[^.\n]{{0,30}}?\b{SHOWN}",
    r"\bno (?:such|relevant|matching|corresponding|clear|visible|specific|apparent|evidence|instance|occurrence|"
    r"moment|event|"
    r"match|scene|segment|time|part|action|one|sign|person|man|woman|interval|span)\w*\b",
    r"\bthere (?:is|are|was|were) (?:no|not)\b|\bthere's no\b|\bthere (?:isn't|aren't|wasn't)\b",
    r"\bnot (?:present|found|shown|visible|in the video|applicable|exist|occur|happen|appear|seen|available in|"
    r"depicted|included|"
    r"featured|there|observed|contained)\w*\b",
    r"\bnever (?:happens?|occurs?|appears?|takes place|shown|seen)\b",
    r"\b(?:does|do|did)(?: not|n't) (?:happen|occur|appear|take place|exist|show|contain|include|feature|depict|have|"
    r"match)\b",
    r"\babsent\b|\bwithout any such\b|\bnowhere\b|\bnothing (?:in|like|of|matches|similar)\b|\bnone of (?:the|these|"
    r"this)\b",
    "没有|沒有|不存在|未出现|未出現|未发生|未發生|并未|並未|没出现|不包含|未找到|找不到|無此|无此|无相关|無相關",
    "ありません|いません|存在しません|見つかりません|起こりません|なし|없습니다|없음|없다|나타나지 않|발생하지 않",
    r"\bkein(?:e|en|er)?\b|\bnicht\b[^.\n]{0,20}\b(?:vor|statt|gefunden|zu sehen|vorhanden|passiert)|\bpassiert nicht",
    r"\baucun\w*\b|\bn'(?:apparaît|existe|y a|a pas lieu|est pas)|\bne (?:se produit|figure|se passe)|\bpas d'|"
    r"\bpas de tel",
    r"\bno (?:ocurre|sucede|aparece|existe|se produce|hay|se encuentra|se muestra)|\bningún\w*\b",
    r"\bnão (?:ocorre|acontece|aparece|existe|há)|\bnenhum\w*\b",
    r"\bnon (?:si verifica|accade|appare|esiste|c'è|succede)|\bnessun\w*\b",
    r"\bне (?:происходит|появляется|найден|существует|показан|встречается)\w*|\bнет\b|\bотсутствует\b",
    r"لا يوجد|لا يحدث|غير موجود|لم يحدث|\bkomt niet\b|\bniet (?:voor|aanwezig|gevonden)\b|\bgeen\b",
    r"\byok\b|\bkhông (?:có|xảy ra)|\btidak (?:ada|terjadi)",
)
"""It does not happen, in the words of many languages."""
REFUSED = (
    r"\b(?:cannot|can't|can not|could not|couldn't|unable to|not able to|not possible to|impossible|won't|will not|"
    r"would need|"
    r"hard to|difficult to|not possible)\b",
    r"\bsorry\b|\bapologi[sz]e|\bas an ai\b|\bi (?:do not|don't) (?:know|have)\b|\bnot sure\b|\bunsure\b|"
    r"\bi'm afraid\b",
    r"\bunknown\b|\bundetermined\b|\bunclear\b|\binsufficient\b|\bnot enough\b|\bneed more\b|\bplease provide\b",
    r"\bnot (?:specified|provided|given|clear|mentioned|known)\b|\bno (?:access|information|video|frames|way)\b",
    r"\b(?:does|do|did)(?: not|n't) (?:provide|know|give|specify)\b",
    r"\b(?:video|frames?|images?|clip)\b[^.\n]{0,40}\b(?:not (?:provided|attached|available|visible to me)|missing)\b",
    "无法|無法|抱歉|对不起|對不起|不知道|不能确定|不确定|難以|难以",
    "申し訳(?:あり|ござい)ません|(?:分か|わか)りません|できません|죄송|알 수 없|모르|확인할 수 없",
    r"\bleider\b|\bnicht (?:bestimmen|sagen|helfen|möglich|feststellen)|\btut mir leid|\bkann (?:ich )?nicht|"
    r"\bweiß nicht",
    r"\bdésolé|\bje ne (?:peux|sais)|\blo siento|\bno (?:puedo|sé|es posible|se puede)",
    r"\bdesculpe|\bnão (?:posso|sei|é possível|consigo)|\bmi dispiace|\bnon (?:posso|so|è possibile)",
    r"\bизвините|\bне (?:могу|знаю|удалось)|\bневозможно|عذرا|آسف|لا أستطيع|لا يمكن",
    r"\bhelaas|\büzgünüm|\bxin lỗi|\bmaaf",
)
"""The model does not say."""
NOT_FOUND = re.compile(
    r"\b(?:cannot|can't|could not|couldn't|can not|unable to|not able to|failed to|did not|didn't|do not|don't) "
    r"(?:find|locate|see|spot|observe|detect)\b"
)
DENIED = re.compile(
    rf"\b{THING}\b[^.\n]{{0,40}}?\b(?:(?:does|do|did)(?: not|n't)|never) (?:happens?|occurs?|appears?|takes? place|"
    rf"exists?)\b"
    r"|\bno such (?:event|moment|action|scene|activity)\b"
)
NOTHING = re.compile(
    r"\W*(?:none|null|n/?a|nil|nothing|no|never|nan|empty|no answer|not applicable|-1|nope|\[\s*\]|\{\s*\}|\(\s*\)|"
    r"\[\[\s*\]\]|"
    r"无|無|没有|沒有|否|なし|없음|нет|aucun|keine?|ninguno|nenhum|nessuno|لا شيء|لا)\W*"
)
NEVER, REFUSED = re.compile("|".join(NEVER)), re.compile("|".join(REFUSED))
GOES_ON = re.compile(r"\b(?:but|however|although)\b")


def without_time(text: str) -> str:
    """``none``: it says that it does not happen; ``refusal``: it says nothing about when; ``unreadable``: neither.

    Args:
        text: plain text in which there is no time.
    """
    text = both_ends(text)
    if NOTHING.fullmatch(text) or NOT_FOUND.search(text):
        return "none"
    if REFUSED.search(text):
        return "none" if NEVER.search(REFUSED.sub(" ", text)) else "refusal"
    return "none" if NEVER.search(text) else "unreadable"


def denies(text: str) -> bool:
    """True for a text that says that the event does not happen."""
    return bool(NEVER.search(both_ends(text)))


def refuses(text: str) -> bool:
    """True for a text that does not answer, and does not go on with "but"."""
    text = both_ends(text)
    return bool(REFUSED.search(text)) and not GOES_ON.search(text)


def contradicted(text: str) -> bool:
    """True where the sentence of the first number says that it does not happen: "does not happen between 0 and 60"."""
    number = re.search(r"\d", text)
    before = text[max(number.start() - LONGEST, 0) : number.start()] if number else ""
    return bool(DENIED.search(re.split(r"[.;\n]|\b(?:but|however|instead|closest|best)\b", before)[-1]))


def both_ends(text: str) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= 2 * LONGEST else f"{text[:LONGEST]}\n{text[-LONGEST:]}"
