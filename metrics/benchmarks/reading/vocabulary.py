"""The words with which answers speak of time, in the languages that models answer in. No rule stands here."""


def listed(words: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(words.split())


SECONDS = listed("""
    seconds second secs sec s seonds secons secods secnds sconds seocnds seconde secondes segundos segundo seg
    segs sekunden sekunde sek secondi secondo секунды секунда секунд секунду секунде секундами сек с seconden
    sekundy sekund saniye saniyeden saniyeye sn giây detik ثانية ثانیه ثواني ثوان الثانية सेकंड सेकेंड วินาที
""")
MINUTES = listed("""
    minutes minute mins min m minuto minutos minuten minuti минуты минута минут минуту мин dakika phút menit
    minuty minut دقيقة دقائق मिनट นาที
""")
HOURS = listed("""
    hours hour hrs hr h hora horas stunden stunde heures heure ore ora час часа часов ч saat giờ jam ساعة
""")
MILLISECONDS = listed("milliseconds millisecond msecs msec ms")
PERCENT = listed("percent percentage pct prozent процентов")
FRAMES = listed("frames frame")
EASTERN_UNITS = {
    "ms": listed("毫秒"),
    "s": listed("秒钟 秒鐘 秒 초"),
    "min": listed("分钟 分鐘 分 분"),
    "h": listed("小时 小時 時間 시간"),
    "frame": listed("帧 フレーム"),
}
UNITS = {
    **dict.fromkeys(SECONDS, "s"),
    **dict.fromkeys(MINUTES, "min"),
    **dict.fromkeys(HOURS, "h"),
    **dict.fromkeys(MILLISECONDS, "ms"),
    **dict.fromkeys((*PERCENT, "%"), "%"),
    **dict.fromkeys(FRAMES, "frame"),
    **{word: unit for unit, names in EASTERN_UNITS.items() for word in names},
}
"""Word -> unit."""
SECONDS_IN = {"s": 1.0, "clock": 1.0, "min": 60.0, "h": 3600.0, "ms": 0.001}

JOIN = listed("""
    to until till til untill through thru upto hasta bis до по tot do zu hingga sampai đến tới إلى الى se से
    jusqu jusqu'à تا ile à a al ate até fino ad - ~ → ... … 到 至 から 부터 에서 kadar
""")
"""Between two times: from the one to the other."""
AND = listed("and & und et y e и en ve و और i 和 与 與 及 と 와 과 và dan")
BETWEEN = listed("between entre zwischen между tussen tra fra within 介于 antara giữa بين betwixt")
AFTER_BETWEEN = listed("之间 之間 間 の間 사이 arasında")
FROM = listed("from desde von от с van od da dari từ من de du des dal dalla vom 从 從 自")
START = listed("""
    start starts started starting begin begins began begun beginning commences commencing onset opens enters
    appears initiates beginnt start_time starttime startzeit comienza empieza inicia inicio começa commence
    début inizia inizio начинается начало 开始 開始 起始 시작 startet
""")
END = listed("""
    end ends ended ending finish finishes finished finishing stop stops stopped concludes concluding concluded
    over leaves exits disappears terminates completes completed end_time endtime endzeit endet termina finaliza
    fin final termine finisce fine заканчивается конец 结束 結束 终止 종료 끝 done closes until till til hasta bis jusqu
""")
LENGTH = listed("""
    lasts lasting lasted for duration length spanning continues dauert durant pendant durante dura 持续 持續 共
""")
"""In front of a time: it says how long, not when."""
LONG = listed("long clip video segment interval window footage duration later earlier")
"""Behind a time: the same."""
AT = listed("""
    at around about near approximately approx roughly @ circa ca bei um à в timestamp time t 第 在 於 于 sec second
""")
FILLER = listed("""
    the a an of in on it is was about around approximately approx roughly circa ca nearly just right almost
    exactly at mark marks point points time times timestamp timestamps t up and then finally video clip's le la
    el los las der die das dem den im um bei ungefähr etwa environ vers aproximadamente около примерно 第 约 約 大约
    大約 在 的 于 於 时 時 处 處 と の まで 까지 again also , : = ( ) [ ] " ' * maybe perhaps
    probably into clip ≈ ± ≃ + this
    event moment action by . | est til i
""")
"""May stand between a time and the word that joins it to the next one. Units may, too."""

BELOW_20 = listed("""
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
""")
NUMBER_WORDS = {word: value for value, word in enumerate(BELOW_20)} | {
    word: 10 * (i + 2) for i, word in enumerate(listed("twenty thirty forty fifty sixty seventy eighty ninety"))
}
CHINESE_DIGITS = {digit: i for i, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
CHINESE_POWERS = {"十": 10, "百": 100, "千": 1000}
