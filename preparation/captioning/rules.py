"""What is said in answers that are no description of a scene: patterns, by the reason that is counted.

They are rules for English prose about what can be seen. Such prose has no writer and no reader, knows of no task and no
picture, and names no time. Case does not matter, apostrophes are plain, and quotations have been taken out before.
"""

import re


def _any(*patterns: str) -> re.Pattern:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.MULTILINE)


CANNOT = r"(?:can't|cannot|can not|couldn't|could not)"
DO = "assist|comply|fulfill?|process|provide|describe|generate|access|determine|summari[sz]e|condense|complete"
TELL = "tell|say|determine|describe|provide|condense|summari[sz]e|identify|make (?:it |anything )?out|see anything"
TOLD = "mentioned|specified|described|provided|stated|indicated|available|included|detailed|supplied|applicable|given"
DETAILS = "details?|info|information|context|description|evidence|indication|data|content"
NEW = "further|additional|other|more|new|relevant|specific|visible|extra|sufficient|clear|useful|visual|distinct|such"
TEXTS = "description|query|prompt|caption|words|text|input|sentence|instruction"
PICTURES = (
    "(?:video|clip|footage|image|picture|photo|photograph|frame|still|screenshot|sequence|recording|scene|shot|"
    "segment|moment|camera)s?"
)
SHOW = (
    "shows?|depicts?|captures?|features?|displays?|illustrates?|presents?|portrays?|showcases?|reveals?|focus on|"
    "focuses on|consists? of|is about|(?:opens|begins|starts|ends|concludes|closes|continues) (?:with|on|as|by|in)"
)
ORDINAL = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|final"
NUMBER = (
    r"(?:\d+(?:\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|"
    "fifty|sixty|several|(?:a )?few|(?:a )?couple(?: of)?|many)"
)

REFUSAL = _any(
    r"\b(I'm|I am|we're|we are) ((so|very|really|truly) )?(sorry|afraid|unable|not able|not sure|only able|just an?)\b",
    rf"\b(I|we) ({CANNOT}|don't|do not|didn't|did not|won't|will not|must|need|apologi[sz]e)\b",
    r"^\W*((oh|oops|hm+)\W+)?((my|our) )?(sorry|apologies|unfortunately|regrettably|regretfully)\b",
    r"\b(as|I am|I'm|being) (just |only )?an? (AI|artificial intelligence|chatbot|assistant|text[- ]based)\b",
    r"\b(AI|language|text[- ]only) (language )?(model|assistant)\b",
    rf"\b(assistant|model|system|AI|chatbot|request) ({CANNOT}|is unable|is not able|does not|doesn't)\b",
    rf"\b(unable|not able|not allowed|not permitted) to ({DO}|give|create|produce|help with)\b",
    rf"\b{CANNOT} ({DO}|help with|be (determined|described|identified|assessed|verified|provided|answered))\b",
    rf"\b(impossible|not possible|difficult|hard) to ({TELL})\b|\btoo \w+ to ({TELL})\b",
    r"\b(isn't|is not|not|un) ?clear (what|who|whether|if|how|why|which)\b",
    r"\b(content|safety|usage|use|community|privacy)[- ](polic(y|ies)|guidelines?|restrictions?)\b",
    r"\b(request|content) (was |is |has been )?(denied|refused|rejected|blocked|filtered)\b",
)
NOTHING = _any(
    r"^\W*(n/?a|nil|null|none|nothing|unknown|unclear|undefined|unspecified|empty|blank|tbd|todo|placeholder)\W*$",
    r"^\W*(n/?a|unknown|undefined)\b\s*[:;,.(–—-]|^\W*(error|no such|(same|see|as) (as )?(above|before))\b",
    r"\b(event|moment|action) (is|was)(n't| not)\b|^\W*nothing (happens|changes|occurs|is (seen|visible|shown))\b",
    rf"^\W*(none|nothing|not)( else| more| further)?( is| are| was| were| of this is)? ({TOLD}|found|known|relevant)\b",
    r"\bnothing (else |more |further )?(to|can be|could be|is) (add|describe|report|say|said|note|condense|mention)",
    rf"\b(no|any|insufficient|not enough|lacks?|lacking|limited) (({NEW}) )*({DETAILS})\b",
    rf"\b({DETAILS}|answer|caption)( is| are| was| were)? (not|un) ?({TOLD}|found)\b",
    rf"\b(is|are|was|were)(n't| not| nowhere) ((explicitly|clearly|further|specifically) )?({TOLD})\b",
    r"\blorem ipsum\b|[\[{][^\[\]{}]*[\]}]",
)
TASK = _any(
    r"\b(the|this|given|provided|above|original|user's|search|input) (description|query|prompt|user|input)\b",
    rf"\b({TEXTS}|{PICTURES}) (attached|uploaded|provided|given|supplied|above|you)\b",
    rf"\b({TEXTS}|user) (says?|states?|mentions?|describes?|does|do|did|doesn't|don't|contradicts?|notes?|indicates?|"
    r"implies|imply|suggests?|asks?|specif(y|ies)|is looking|looks for|wants?)\b",
    r"\bas (described|mentioned|stated|noted|specified|depicted|requested|instructed|asked|required)\b",
    rf"\b(contradicts?|consistent with|matches|related to) the ({TEXTS})\b",
    rf"\b{PICTURES} ({SHOW})\b",
    r"\b(no|the|these|any) (images?|pictures|frames|videos?|clips?|footage) (is|are|was|were|has|have|could|can)\b",
    r"\b(based on|according to|judging (by|from)) (the|these|what)\b|\bwhat (was|is|can be) (described|seen|shown)\b",
    r"\b(in|through|throughout|across|during|within|of|from) (the|this|these|that|each) (video|clip|footage|frames)\b",
    r"\b(in|through|throughout|across|within) (the|this|these|each) (\w+ )?(image|picture|photo|frame|sequence)s?\b",
    rf"\b({ORDINAL}|next|initial|opening|closing|subsequent|previous|later|earlier|same) "
    r"(frame|image|picture|photo|clip|still|shot)s?\b|\bframes? \d",
    r"\b(time|event|start|end|structural) (tokens?|markers?)\b|\bthe (viewer|observer|annotator)s?\b",
)
READER = _any(
    r"\bI('m|'ve|'ll|'d)\b|(?<!world war )\bI (?=[a-z])|\b(my|myself|me|we|we're|we've|we'll|our|ours|ourselves)\b",
    r"(?-i:\bus\b)|(?<!thank )(?<!thank-)\b(you|your|yours|you're|you've|you'll)\b|^\W*thank(s| you)\b",
    r"^\W*(sure( thing)?|certainly|of course|absolutely|definitely|okay|ok|alright|all right|great|perfect|understood|"
    r"got it|no problem|gladly|yes|yeah|no|hello|hi|hey|noted|well)\s*([,.!:;–—]|- )",
    rf"^\W*(here('s| is| are)|below (is|are)|(the )?following (is|are)|this is (a|the) (\w+ )?({TEXTS}|summary))\b",
    r"^\W*(in short|in summary|to summari[sz]e|to sum up|overall|in conclusion)\b|\b(details|elements) (are|include)\b",
    r"\blet('s| me)\b|\bhope (this|that|it) helps\b|\bfeel free\b|\bhappy to (help|assist|provide)\b",
    r"\bplease (provide|note|let|share|see|give|specify|clarify|refer|upload)\b|\bword count\b|\b\d+ words\b",
    r"\b(revised|condensed|rewritten|shortened|summari[sz]ed|requested|edited) (version|descriptions?|sentences?)\b",
)
TIME = _any(
    r"\d+:\d\d|\d\s*%|\bt\s*=\s*\d|\btime[- ]?(stamp|code)s?\b",
    rf"\b{NUMBER} (seconds|minutes|hours)\b|\d[\s-]*(secs?|seconds?|mins?|minutes?|hrs?|hours?|milliseconds)\b",
    r"(?<!the )(?<!\d)\d{1,3}(\.\d+)? ?s\b",  # but not the 80s, nor 1950s
    rf"\b{NUMBER}-(second|minute|hour)\b|\b{NUMBER} (second|minute) (mark|pause|clip|interval|wait|long)\b",
    rf"\d(st|nd|rd|th) (second|minute)\b|\b({ORDINAL}) ({NUMBER} )?(seconds|minutes?)\b"
    r"|\bhalf an? (second|minute|hour)\b|\bof an hour\b|\d ?h\b",
    r"\b(for|after|within|in|about|around|at|another|lasts?|lasting|takes?|just|almost|nearly) (an?|one|another) "
    r"(second|minute|hour)(?=\s*([.,;:!]|$|and\b|while\b|until\b))",
    r"\b(an?|one|another) (second|minute|hour) (or so|in|into|later|before|after|long|earlier|ago)\b",
    r"\b(frame|second|minute)s? \d|\bfrom \d+(\.\d+)? (to|until|-|–) \d+",
)
MARKUP = _any(
    r"\*\*|`|~~|^\s*#{1,6}\s|^\s*([-*•–+]|\d{1,2}[.)])\s+\S|^\s*[|>]|(?<!\w)[*_]\w[^*_]*[*_](?!\w)",
    r"\]\(|https?://|^\s*[\[{]\W*\w+\W*:|&\w+;|\\[a-z]+\{|\\n",
    r"^\W*([\w'-]+ ){0,3}[\w'-]+[\"']?\s*:(?=\s)(?!\s*[\"“])|^\W*(description|caption|answer|details?|summary)\s*[-–—]",
)
